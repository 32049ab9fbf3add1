"""An S3 endpoint on loopback: moto's server, with puts one at a time.

Belongs here: starting and ending it in a process of its own. Does not: any lake.

moto looks whether an object exists and stores it in two steps; a real store does both at once, so
puts are serialized here.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

BUCKET = "lake"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "loopback",
    "AWS_SECRET_ACCESS_KEY": "loopback",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


@contextmanager
def endpoint() -> Iterator[dict[str, str]]:
    """The environment variables that lead to a fresh, empty bucket.

    Raises:
        EOFError: the server died before it listened; its traceback is on standard error.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    server = context.Process(target=_serve, args=(sender,), daemon=True)
    server.start()
    sender.close()  # else a server that dies is waited for without end
    try:
        url = f"http://127.0.0.1:{receiver.recv()}"
        env = {**CREDENTIALS, "AWS_ENDPOINT_URL": url}
        import boto3

        boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="loopback",
            aws_secret_access_key="loopback",
        ).create_bucket(Bucket=BUCKET)
        yield env
    finally:
        server.kill()
        server.join()


def _serve(port: Connection) -> None:
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    os.environ.update(CREDENTIALS)
    app = DomainDispatcherApplication(create_backend_app)
    lock = threading.Lock()

    def one_put_at_a_time(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "PUT":
            return app(environ, start)  # type: ignore[no-any-return]
        with lock:
            return list(app(environ, start))

    server = make_server("127.0.0.1", 0, one_put_at_a_time, threaded=True)
    port.send(server.server_port)
    server.serve_forever()
