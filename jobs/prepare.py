"""Glue runs this first: the raw tables of the catalog become the features table, or nothing that anyone reads has changed."""

import argparse
import sys
from typing import Sequence


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prepare.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--dataset", required=True, help="the dataset's name")
    parser.add_argument(
        "--database", required=True, help="the Glue database with the raw tables, where `features` is published"
    )
    parser.add_argument("--lake", required=True, help="s3://BUCKET/ that the features are written to")
    parser.add_argument("--run-id", required=True, help="the name of this run, part of every path it writes")
    parser.add_argument("--region", required=True, help="the AWS region of catalog and buckets")
    return parser


def main(argv: Sequence[str]) -> None:
    build_parser().parse_known_args(argv)


if __name__ == "__main__":
    main(sys.argv[1:])
