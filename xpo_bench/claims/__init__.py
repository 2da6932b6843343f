"""The ledger of claims: what papers say, as files of data, run and judged by declared tests."""
