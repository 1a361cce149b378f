"""No secret of an address is shown: whatever kind of address it is, and whoever puts it into a sentence."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.addresses import hidden, is_url, secrets_of, without_secrets

SHOWN = {
    "s3://bucket/a/": "s3://bucket/a/",
    "s3://key:hunter2@bucket/runs": "s3://bucket/runs",
    "sftp://me:pass@host:22/a/b?key=tok#x": "sftp://host:22/a/b",
    "https://token@host/a": "https://host/a",
    "https://host:8080/a@b/c": "https://host:8080/a@b/c",
    "https://host/a?X-Amz-Signature=hunter2": "https://host/a",
    "https://host?token=hunter2": "https://host",
    "hf://datasets/me/runs@main/a": "hf://datasets/me/runs@main/a",
    "postgresql+psycopg2://me:a/b?c#d@host:5432/mlflow": "postgresql+psycopg2://host:5432/mlflow",
    "mysql://me:p%40ss@host/db": "mysql://host/db",
    "mysql://me:p@ss@host/db": "mysql://host/db",
    "s3://key:hunter2@bucket/runs@main": "s3://bucket/runs@main",
    "sqlite:////home/me/mlflow.db": "sqlite:////home/me/mlflow.db",
    "/home/me/runs?a@b": "/home/me/runs?a@b",
    "runs": "runs",
}


@pytest.mark.parametrize("address", list(SHOWN))
def test_what_is_shown_of_an_address(address: str) -> None:
    assert without_secrets(address) == SHOWN[address]
    assert is_url(address) == ("://" in address)


@given(
    scheme=st.sampled_from(["https", "s3", "postgresql", "mysql+pymysql", "sftp"]),
    password=st.text(st.sampled_from("aB/?#:&=+ ~%"), min_size=4, max_size=12),
)
def test_a_password_is_in_no_form_of_its_address(scheme: str, password: str) -> None:
    for written in (password, quote(password, safe="")):
        address = f"{scheme}://me:{written}@host.example/runs"
        assert without_secrets(address) == f"{scheme}://host.example/runs"
        text = hidden(f"cannot log in with {password} ({written}) at {address}, nor with {address}", address)
        assert written not in text.replace("://host.example/runs", "")
        assert text.endswith(f"{scheme}://host.example/runs")


def test_addresses_in_a_text_lose_their_secrets_and_the_text_stays() -> None:
    text = "HTTPSConnectionPool: see https://me:pw@host/a?token=t0ken, or (postgresql://u:p@db/x). Not a@b or x#y?"
    assert hidden(text) == "HTTPSConnectionPool: see https://host/a, or (postgresql://db/x). Not a@b or x#y?"
    assert hidden("https://host/a/ is as it was") == "https://host/a/ is as it was"


def test_a_value_of_a_query_is_taken_out_where_it_is_alone() -> None:
    address = "https://host/runs?sig=s3cr3t%2Fvalue&v=1"
    assert hidden("sig s3cr3t/value of s3cr3t%2Fvalue is old: 1 try", address) == "sig *** of *** is old: 1 try"
    assert secrets_of("/a/path?x=secret") == []


def test_a_password_with_an_unescaped_at_is_hidden_whole_and_in_parts() -> None:
    address = "postgresql://u:secret@word99@host/db"
    assert hidden("auth failed for password secret@word99", address) == "auth failed for password ***"
    assert hidden(f"no host word99@host in {address}", address) == "no host ***@host in postgresql://host/db"
    assert hidden(f"at {address}") == "at postgresql://host/db"
