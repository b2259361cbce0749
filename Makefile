# The only commands a newcomer needs. Each sets up what it stands on first: Python 3.11 and make are all a machine must have.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
WHEELS := .dml/wheels
BENCH := .dml/bench/venv
CHECKOV := .dml/lint/checkov
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run test lint bench setup clean
.DEFAULT_GOAL := run

run: setup  ## the whole way on this machine: deploy to the embedded cloud, train, predict
	@$(BIN)/dml run nyc_flights --local

test: setup  ## every test, one real end-to-end run among them
	@$(BIN)/python -m pytest

lint: setup $(CHECKOV)/.installed  ## code and templates: ruff, mypy, cdk-nag, cfn-lint, checkov
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@for env in dev prod; do \
	  rm -rf .dml/lint/$$env && echo "templates of $$env: cdk-nag" && \
	  node node_modules/aws-cdk/bin/cdk synth --quiet --no-notices -c env=$$env -c nag=true --output .dml/lint/$$env >.dml/lint/$$env.log 2>&1 \
	    || { cat .dml/lint/$$env.log; exit 1; }; \
	  echo "templates of $$env: cfn-lint" && $(BIN)/cfn-lint --regions us-east-1 -- .dml/lint/$$env/*.template.json || exit 1; \
	  echo "templates of $$env: checkov" && $(CHECKOV)/bin/checkov --config-file lint/checkov.yaml --directory .dml/lint/$$env || exit 1; \
	done
	@echo "the repository: checkov, secrets" && $(CHECKOV)/bin/checkov --framework secrets --compact --quiet --skip-download --directory . \
	  --skip-path .venv --skip-path node_modules --skip-path .dml --skip-path .git

$(CHECKOV)/.installed: lint/requirements.txt $(BIN)/.installed
	@echo "Setting up checkov apart from the project's own packages: it wants another boto3 (once)"
	@"$(PYTHON)" -m venv --clear $(CHECKOV)
	@$(CHECKOV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# What `make bench` may be told: ROWS=337k (of 337k,3.37m,10m), REPETITIONS=1, FRESH=1, PIPELINE=run.json.
ROWS ?= 337k,3.37m,10m
REPETITIONS ?= 3

bench: setup $(BENCH)/.installed  ## training here against MLlib, scikit-learn, XGBoost and LightGBM: docs/benchmarks.md
	@$(BIN)/python -m bench.folds
	@$(BIN)/python -m bench --rows $(ROWS) --repetitions $(REPETITIONS) $(if $(FRESH),--fresh) $(if $(PIPELINE),--pipeline "$(PIPELINE)")

$(BENCH)/.installed: bench/requirements.txt $(BIN)/.installed
	@echo "Setting up the learners to compare with, apart from the project's own packages (once)"
	@"$(PYTHON)" -m venv --clear $(BENCH)
	@$(BENCH)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

setup: $(BIN)/.installed node_modules/.installed $(WHEELS)/.installed

$(BIN)/.installed: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo "dml needs Python 3.11; found: $$("$(PYTHON)" --version 2>&1 || echo none). Install it, or say where it is: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up .venv with Python packages, Java and Node (once, some minutes)"
	@"$(PYTHON)" -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m dml.local.warm_start
	@touch $@

node_modules/.installed: package.json package-lock.json $(BIN)/.installed
	@echo "Setting up the AWS CDK CLI"
	@npm ci --loglevel=error
	@touch $@

# What the cluster's Python needs beyond Spark, for both processors that environments/ may choose: shipped as an S3 asset,
# because private subnets need no package index.
$(WHEELS)/.installed: cluster/requirements.txt $(BIN)/.installed
	@echo "Fetching the cluster's Python packages"
	@rm -rf $(WHEELS)
	@for architecture in aarch64 x86_64; do \
	  $(BIN)/pip download --quiet --disable-pip-version-check --require-hashes --no-deps -r $< \
	    --platform manylinux2014_$$architecture --python-version 3.11 --only-binary=:all: -d $(WHEELS)/$$architecture || exit 1; \
	done
	@touch $@

clean:  ## everything that setup and runs made, the embedded cloud's data included
	@test ! -x $(BIN)/dml || $(BIN)/dml local down
	rm -rf .venv node_modules .dml cdk.out *.egg-info
