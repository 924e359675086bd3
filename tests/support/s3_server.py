"""An S3 server on this machine: moto's, with its requests recorded and with faults on demand."""

import logging
import threading
import uuid
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from werkzeug.serving import make_server

KEY, SECRET = "AKIAEXAMPLE", "s3cret/KEY"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class Request(NamedTuple):
    method: str
    path: str
    range: str
    sent: int
    """Bytes of the answer."""


class S3:
    """A server; every test takes a bucket of its own."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self.requests: list[Request] = []
        self.denied = False
        self.before: Callable[[str, str], None] = lambda path, part: None
        """Called with path and range before a part of an object is sent."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }  # fmt: skip

    def bucket(self) -> str:
        """Make a bucket, forget earlier requests and faults, and return the bucket's name."""
        name = f"b-{uuid.uuid4().hex}"
        self.before, self.denied = lambda path, part: None, False
        self._client.create_bucket(Bucket=name)
        self.requests.clear()
        return name

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=bucket, Key=key, Body=data)

    def upload(self, directory: Path, bucket: str, prefix: str) -> None:
        """Copy a directory as `aws s3 cp --recursive` does."""
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                self.put(bucket, f"{prefix}/{path.relative_to(directory).as_posix()}", path.read_bytes())

    def read(self) -> list[Request]:
        """Return the reads of objects so far, and forget them."""
        found = [each for each in self.requests if each.method == "GET" and each.range]
        self.requests.clear()
        return found

    def stop(self) -> None:
        self._server.shutdown()

    @cached_property
    def _client(self) -> Any:
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id=KEY, aws_secret_access_key=SECRET,
        )  # fmt: skip

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path, part = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE", "")
        if method == "GET" and part:
            self.before(path, part)
        if self.denied:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [DENIED]

        def recorded(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            sent = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            self.requests.append(Request(method, path, part, sent))
            return start_response(status, headers, *rest)

        return self._app(environ, recorded)  # type: ignore[no-any-return]
