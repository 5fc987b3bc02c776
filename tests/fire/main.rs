//! Whole transfers by the command to real servers, through a proxy that does to them what networks do, and with the server killed in the middle.
//!
//! `tests/servers/servers.py install DIR NAME...` installs servers, `MAILRAIL_SERVERS=DIR` has them used; what is not there is skipped, and said to be.
#![cfg(all(feature = "cli", feature = "testing"))]

mod http;
#[allow(dead_code, reason = "benches/compare uses more of it")]
mod proxy;
#[allow(dead_code, reason = "others use more of it")]
#[path = "../servers/mod.rs"]
mod servers;

use mailrail::organisation::Organisation;
use proxy::{Fault, Proxy, Weather};
use servers::Server;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

#[test]
fn seaweedfs_under_fire() {
    under_fire("seaweedfs");
}

#[test]
fn azurite_under_fire() {
    under_fire("azurite");
}

#[test]
fn moto_under_fire() {
    under_fire("moto");
}

#[test]
fn a_server_that_is_killed_and_comes_back_costs_time_and_nothing_else() {
    let Some(mut server) = Server::start("seaweedfs") else { return };
    let place = Place::new(30 << 20);
    // Slow enough to be killed in the middle of an object.
    let proxy = Proxy::start(server.address(), Weather { bandwidth: Some(4 << 20), ..Weather::default() });
    let push = place.command(&server, Some(&proxy), &["push", &place.source(), &url(&server)]);
    let child = start(push);
    for requests in [30, 45] {
        proxy.wait_for_requests(proxy.requests().max(requests) + 1);
        server.kill();
        server.restart();
    }
    let pushed = child.wait_with_output().unwrap();
    is_complete(&pushed);
    place.is_sound(&server);
}

/// Push, check, restore, push again, forget, sweep, with one request in ten met by a fault; what is there in the end is judged without it.
fn under_fire(name: &str) {
    let Some(server) = Server::start(name) else { return };
    let place = Place::new(40 << 20);
    let weather = Weather {
        latency: Duration::from_millis(1),
        jitter: Duration::from_millis(4),
        faulty: 100,
        faults: Fault::ALL.to_vec(),
        seed: 7,
        ..Weather::default()
    };
    let proxy = Proxy::start(server.address(), weather);
    let through = |arguments: &[&str]| place.run(&server, Some(&proxy), arguments);
    let repository = url(&server);

    is_complete(&through(&["push", &place.source(), &repository]));
    place.is_sound(&server);
    is_complete(&through(&["check", "--read-data", &repository]));
    let restored = place.path("through");
    is_complete(&through(&["restore", &repository, &format!("maildir:{}", restored.display())]));
    servers::same_trees(&place.path("mail"), &restored);
    let again = through(&["push", &place.source(), &repository]);
    is_complete(&again);
    is_complete(&through(&["forget", "--all", &repository]));
    is_complete(&through(&["sweep", &repository]));
    // Enough for every fault to have its turn in any order of requests.
    for _ in 0..40 {
        if proxy.met().len() == Fault::ALL.len() {
            break;
        }
        is_complete(&through(&["push", &place.source(), &repository]));
        is_complete(&through(&["check", "--read-data", &repository]));
    }
    is_complete(&through(&["push", &place.source(), &repository]));
    place.is_sound(&server);
    println!("{name}: {} requests, {:?}", proxy.requests(), proxy.met());
    assert_eq!(proxy.met().len(), Fault::ALL.len(), "{:?}", proxy.met());
}

fn url(server: &Server) -> String {
    format!("{}/fire", server.url())
}

fn start(mut command: Command) -> std::process::Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn is_complete(output: &Output) {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    assert!(output.status.success(), "{}: {}{}", output.status, text(&output.stdout), text(&output.stderr));
}

/// Mail to move, and a key.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new(bytes: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        Organisation::new(11).mailboxes(5).bytes(bytes).build().write_maildirs(&root.path().join("mail")).unwrap();
        let key = root.path().join("key");
        std::fs::write(&key, [9; 32]).unwrap();
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn source(&self) -> String {
        format!("maildir:{}", self.path("mail").display())
    }

    /// The command, with packs short enough for many requests, and long enough to go in parts.
    fn command(&self, server: &Server, proxy: Option<&Proxy>, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailrail"));
        let key = self.path("key");
        command.args(["--memory", "64MiB", "--key-file"]).arg(key).args(arguments);
        let small = [("multipart_above", "5242880".to_owned()), ("part_bytes", "5242880".to_owned())];
        for (name, value) in server
            .options_at(proxy.map_or_else(|| server.address(), Proxy::address))
            .into_iter()
            .chain(small.map(|(name, value)| (name.to_owned(), value)))
        {
            command.arg("--store-option").arg(format!("{name}={value}"));
        }
        command
    }

    fn run(&self, server: &Server, proxy: Option<&Proxy>, arguments: &[&str]) -> Output {
        start(self.command(server, proxy, arguments)).wait_with_output().unwrap()
    }

    /// Without the proxy: every octet that is stored verifies, nothing differs from the source, and what is restored is the source.
    fn is_sound(&self, server: &Server) {
        let repository = url(server);
        is_complete(&self.run(server, None, &["check", "--read-data", &repository]));
        is_complete(&self.run(server, None, &["compare", &self.source(), &repository]));
        let restored = tempfile::tempdir().unwrap();
        let sink = restored.path().join("mail");
        is_complete(&self.run(server, None, &["restore", &repository, &format!("maildir:{}", sink.display())]));
        servers::same_trees(&self.path("mail"), Path::new(&sink));
    }
}
