"""An EMR step runs this: the features table becomes a candidate model, with metrics, the tree as JSON, and the gate's verdict."""

import argparse
import sys
from typing import Sequence


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--dataset", required=True, help="the dataset's name")
    parser.add_argument("--database", required=True, help="the Glue database with the table `features`")
    parser.add_argument("--models", required=True, help="s3://BUCKET/ of the model registry")
    parser.add_argument("--run-id", required=True, help="the name of this run, part of every path it writes")
    parser.add_argument("--revision", default="", help="the git revision that the run was started from, if known")
    parser.add_argument("--region", required=True, help="the AWS region of catalog and buckets")
    return parser


def main(argv: Sequence[str]) -> None:
    build_parser().parse_known_args(argv)


if __name__ == "__main__":
    main(sys.argv[1:])
