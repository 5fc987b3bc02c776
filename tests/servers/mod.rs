//! Real servers, for tests and benches: `servers.py` here installs and runs them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

const SCRIPT: &str = include_str!("servers.py");

/// A server that runs until this is dropped.
pub(crate) struct Server {
    script: Child,
    answers: BufReader<ChildStdout>,
    url: String,
    options: Vec<(String, String)>,
}

impl Server {
    /// One of those in the directory that `MAILRAIL_SERVERS` names. `None`, which is printed, if it is not there.
    pub(crate) fn start(name: &str) -> Option<Self> {
        let Some(directory) = std::env::var_os("MAILRAIL_SERVERS") else {
            println!("skipped: MAILRAIL_SERVERS names no directory with servers");
            return None;
        };
        Self::start_in(Path::new(&directory), name)
    }

    /// One that is installed in this directory.
    pub(crate) fn start_in(directory: &Path, name: &str) -> Option<Self> {
        let script = |command: &str| {
            let mut python = Command::new("python3");
            python.args(["-c", SCRIPT, command]).arg(directory).arg(name);
            python
        };
        if !script("has").status().is_ok_and(|status| status.success()) {
            println!("skipped: {name} is not installed in {}", directory.display());
            return None;
        }
        let mut script = script("run").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(script.stdout.take().unwrap());
        let mut server = Self { script, answers, url: String::new(), options: Vec::new() };
        let told = server.answer();
        let started: serde_json::Value = serde_json::from_str(&told).expect("the server starts");
        let options = started["options"].as_object().unwrap().iter();
        server.options = options.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        server.url = started["url"].as_str().unwrap().to_owned();
        Some(server)
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, what: &str, answer: &str) {
        writeln!(self.script.stdin.as_mut().unwrap(), "{what}").unwrap();
        assert_eq!(self.answer(), answer);
    }

    /// Its bucket.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The options that a store there is opened with.
    pub(crate) fn options(&self) -> &[(String, String)] {
        &self.options
    }

    /// The same, for who speaks to `address` in its place.
    pub(crate) fn options_at(&self, address: SocketAddr) -> Vec<(String, String)> {
        let here = self.address().to_string();
        let at = |(name, value): &(String, String)| (name.clone(), value.replace(&here, &address.to_string()));
        self.options.iter().map(at).collect()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let (_, endpoint) = self.options.iter().find(|(name, _)| name == "endpoint").unwrap();
        let address = endpoint.strip_prefix("http://").unwrap();
        address.split('/').next().unwrap().parse().unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.ask("kill", "killed");
    }

    /// Starts it again with what it had, where it was.
    pub(crate) fn restart(&mut self) {
        self.ask("start", "started");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its standard input is closed, by which it ends.
        drop(self.script.stdin.take());
        let ended = self.script.wait();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// The same files below both, with the same octets.
pub(crate) fn same_trees(one: &Path, other: &Path) {
    let (one, other) = (files(one), files(other));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert!(!one.is_empty());
    assert_eq!(names(&one), names(&other));
    for (name, octets) in &one {
        assert!(*octets == other[name], "{name} differs");
    }
}

fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut directories) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false => {
                    let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                    files.insert(name, fs::read(&path).unwrap());
                }
            }
        }
    }
    files
}
