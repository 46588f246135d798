"""What is left of URIs with secrets in them, in whatever form, alone and within texts and commands."""

import shlex

import pytest

from ops.masking import command, mask, shown

S = "geheim"
URIS = [
    (f"http://me:{S}@host:5000", "http://***@host:5000"),
    (f"http://me:p@{S}@host:5000/x", "http://***@host:5000"),
    (f"https://{S}@host/api", "https://***@host"),
    (f"https://me:{S}@[fd00::1]:443/", "https://***@[fd00::1]:443"),
    (f"postgresql+psycopg://u:{S}@h:1/db?sslmode=require", "postgresql+psycopg://***@h:1/db?***"),
    (f"postgresql://u:it's{S}@h/db", "postgresql://***@h/db"),
    (f"postgresql://u:a {S} b@h/db", "postgresql://***@h/db"),
    (f'mysql+pymysql://u:"{S}"@h1:3306,h2:3306/db', "mysql+pymysql://***@h1:3306,h2:3306/db"),
    (f"postgresql://u:a/{S}@h/db", "postgresql://***"),
    (f"postgresql://u:{S}?x@h/db", "postgresql://***"),
    (f"postgresql://u:{S}#x@h/db", "postgresql://***"),
    (f"postgresql://u:{S}/db", "postgresql://***"),
    (f"mysql://h/db?user=u&passwd={S}", "mysql://h/db?***"),
    (f"mysql://h/db?user=u&ssl_key={S}", "mysql://h/db?***"),
    (f"postgresql:///db?host=/run/pg&password={S}", "postgresql:///db?***"),
    (f"mssql+pyodbc:///?odbc_connect=DRIVER={{ODBC Driver 18}};SERVER=h;UID=u;PWD={S}", "mssql+pyodbc://?***"),
    (f"mssql+pyodbc:///?odbc_connect=DRIVER%3D%7Bx%7D%3BSERVER%3Dh%3BPWD%3D{S}", "mssql+pyodbc://?***"),
    (f"mssql+pyodbc:///?odbc_connect=SERVER=h;PWD={{a@{S}}}", "mssql+pyodbc://***"),
    (f"https://host/store?sv=2024&sig={S}%3D", "https://host?***"),
    (f"https://host/store&sig={S}", "https://host?***"),
    (f"https://host/#access_token={S}", "https://host?***"),
    (f"s3://AKIA:{S}@bucket/x", "s3://***@bucket"),
    (f"s3://bucket/x?access_key=a&secret_key={S}", "s3://bucket?***"),
    (f"me:{S}@host/db", "***"),
    (f"http//me:{S}@host", "***"),
]  # fmt: skip
PLAIN = [
    "http://127.0.0.1:5000", "https://mlflow.example/prefix/", "postgresql://h:5432/db", "databricks",
    "postgresql+psycopg2://", "sqlite:////home/me@work/a b/mlflow.db", "sqlite:////tmp/x?y/mlflow.db",
    "s3://bucket/run@2/a?b#c.csv", "./mlruns", "http://[::1]:5000",
]  # fmt: skip


@pytest.mark.parametrize(("uri", "expected"), URIS)
def test_scheme_and_host_are_left(uri, expected):
    assert shown(uri) == expected


@pytest.mark.parametrize("uri", PLAIN)
def test_what_has_no_secret_stays(uri):
    assert shown(uri) == mask(uri) == uri
    assert mask(f"look at {uri}, then at '{uri}' again") == f"look at {uri}, then at '{uri}' again"


@pytest.mark.parametrize("uri", [uri for uri, _ in URIS])
def test_no_secret_is_in_a_command_that_is_shown(uri):
    for words in (["train.py", "--tracking-uri", uri, "--epochs", "3"], ["train.py", f"--tracking-uri={uri}"]):
        if "://" in uri:
            assert S not in command(words)
            assert "".join(shlex.split(command(words))).count("://") == 1


@pytest.mark.parametrize(("text", "expected"), [
    (f"request to https://{S}@host failed", "request to https://***@host failed"),
    (f"(postgresql://u:it's{S}@h/db).", "(postgresql://***@h/db)."),
    (f"first\nno postgresql://u:a {S} b@h/db here\nlast", "first\nno postgresql://***\nlast"),
    (f"mssql+pyodbc:///?odbc_connect=DRIVER={{x y}};PWD=a {S}", "mssql+pyodbc://?***"),
    (f"connecting with UID=u;PWD={{a {S}}};SERVER=h", "connecting with UID=u;PWD=***;SERVER=h"),
    (f"GET /store?sv=1&sig={S} 403", "GET /store?sv=1&sig=*** 403"),
    ("config=3 design=4 --sort-key=x", "config=3 design=4 --sort-key=x"),
])  # fmt: skip
def test_texts_of_others_lose_their_secrets_only(text, expected):
    assert mask(text) == expected


def test_the_tracking_uri_is_known_whatever_is_in_it(monkeypatch):
    uri = f"postgresql://u:a b' {S}@h/db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert mask(f"no answer from {uri} in 3 s") == "no answer from postgresql://***@h/db in 3 s"
