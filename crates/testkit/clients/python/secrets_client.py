"""Vault's and AWS's own libraries against the stand-in of secret managers. Takes its URL."""

import sys

import boto3
import botocore.exceptions
import hvac
from botocore.config import Config

import expect

URL = sys.argv[1]
KEY_ID = "AKIATESTKIT00000000A"

vault = hvac.Client(url=URL, token="root-token")
expect.that("a token is known", vault.is_authenticated())
read = vault.secrets.kv.v2.read_secret_version(path="app", mount_point="secret", raise_on_deleted_version=True)
expect.that("fields are read", read["data"]["data"] == {"openai": "sk-1"}, read)
expect.raises("a secret that is not there", hvac.exceptions.InvalidPath,
              lambda: vault.secrets.kv.v2.read_secret_version(
                  path="none", mount_point="secret", raise_on_deleted_version=True))
looked = vault.auth.token.lookup_self()["data"]
expect.that("a token has its time", 0 < looked["ttl"] <= 60 and looked["renewable"], looked)
renewed = vault.auth.token.renew_self()["auth"]
expect.that("it is renewed", renewed["lease_duration"] == 60 and renewed["renewable"], renewed)

role = hvac.Client(url=URL)
expect.that("nobody is known", not role.is_authenticated())
expect.raises("a wrong secret", hvac.exceptions.InvalidRequest,
              lambda: role.auth.approle.login(role_id="role", secret_id="wrong"))
role.auth.approle.login(role_id="role", secret_id="secret-id")
expect.that("an AppRole is known", role.is_authenticated() and role.token.startswith("hvs."))
expect.raises("a wrong token", hvac.exceptions.Forbidden,
              lambda: hvac.Client(url=URL, token="wrong").auth.token.lookup_self())


def manager(secret):
    return boto3.client(
        "secretsmanager", region_name="eu-central-1", endpoint_url=URL, aws_access_key_id=KEY_ID,
        aws_secret_access_key=secret, config=Config(retries={"total_max_attempts": 1}))


aws = manager(f"secret/of+{KEY_ID}")
got = aws.get_secret_value(SecretId="prod/app")
expect.that("a secret is read", got["SecretString"] == '{"openai":"sk-2"}' and got["Name"] == "prod/app", got)
expect.raises("one that is not there", aws.exceptions.ResourceNotFoundException,
              lambda: aws.get_secret_value(SecretId="none"))
expect.raises("a wrong key", botocore.exceptions.ClientError,
              lambda: manager("wrong").get_secret_value(SecretId="prod/app"),
              lambda error: error.response["Error"]["Code"] == "InvalidSignatureException")
expect.done()
