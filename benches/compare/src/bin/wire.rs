//! How fast packs go to a real server, and come back: beside a program that uploads the same packs and does nothing else, with latency, with failing
//! requests, and beside restic.
//!
//! `wire --server seaweedfs --servers DIR` starts the server anew for every turn (`tests/servers/servers.py install DIR NAME` installs it), so that none
//! finds what another has left. Latency and failures are those of the proxy of `tests/fire`, with which they are compared without them, too.

#[path = "../../../../tests/fire/http.rs"]
mod http;
#[path = "../measure.rs"]
mod measure;
#[path = "../../../../tests/fire/proxy.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod proxy;
#[path = "../../../../tests/servers/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod servers;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use futures::{StreamExt, TryStreamExt, stream};
use measure::Cost;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use proxy::{Fault, Proxy, Weather};
use servers::Server;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use walkdir::WalkDir;

/// Measures uploads and downloads to a real server.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// seaweedfs, azurite or moto
    #[arg(long, default_value = "seaweedfs")]
    server: String,
    /// Where `tests/servers/servers.py` has installed it
    #[arg(long, env = "MAILRAIL_SERVERS", default_value = "")]
    servers: PathBuf,
    /// A mailrail that is built with all features
    #[arg(long, default_value = "../../target/release/mailrail")]
    mailrail: PathBuf,
    /// Maildirs
    #[arg(long, default_value = "")]
    mail: PathBuf,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// These ways only
    #[arg(long, value_delimiter = ',')]
    ways: Vec<String>,
}

#[derive(Subcommand)]
enum Role {
    /// Uploads all files below a directory, eight at once, each in one request.
    #[command(hide = true)]
    Bare { directory: PathBuf, url: String, options: Vec<String> },
}

/// A way of doing it.
struct Way {
    name: &'static str,
    program: Program,
    /// MiB.
    budget: u32,
    weather: Option<Weather>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    Bare,
    Mailrail,
    Restic,
}

/// What a turn took.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    push: Cost,
    restore: Option<Cost>,
    /// As the proxy counted them, where there is one.
    requests: u64,
    /// Behind the first ten seconds: requests a second that were granted, and which share of all was refused. Where there is a rate.
    settled: Option<(f64, f64)>,
}

fn ways() -> Vec<Way> {
    let way = |name, program, budget, weather| Way { name, program, budget, weather };
    let calm = Some(Weather::default());
    let far = Some(Weather { latency: Duration::from_millis(50), ..Weather::default() });
    let faults =
        vec![Fault::ServerError, Fault::Unavailable, Fault::ResetRequest, Fault::ResetAnswer, Fault::LoseAnswer];
    let failing = Some(Weather { faulty: 100, faults, seed: 1, ..Weather::default() });
    vec![
        way("bare", Program::Bare, 0, None),
        way("mailrail 64", Program::Mailrail, 64, None),
        way("mailrail 256", Program::Mailrail, 256, None),
        way("mailrail 512", Program::Mailrail, 512, None),
        way("proxy", Program::Mailrail, 512, calm.clone()),
        way("proxy, 50 ms", Program::Mailrail, 512, far),
        way("proxy, 10 % fail", Program::Mailrail, 512, failing),
        way("proxy, 20 requests/s", Program::Mailrail, 64, Some(Weather { rate: Some(20), ..Weather::default() })),
        way("restic, proxy", Program::Restic, 0, calm),
    ]
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Role::Bare { directory, url, options }) = &arguments.role {
        return bare(directory, url, options);
    }
    let is_chosen = |way: &Way| arguments.ways.is_empty() || arguments.ways.iter().any(|name| name == way.name);
    let ways: Vec<Way> = ways().into_iter().filter(is_chosen).collect();
    let bench = Bench::new(&arguments)?;
    let mut turns: BTreeMap<&str, Vec<Turn>> = BTreeMap::new();
    for round in 0..arguments.rounds {
        for turn in 0..ways.len() {
            let way = &ways[(round + turn) % ways.len()];
            let took = bench.turn(way).with_context(|| format!("{} in round {}", way.name, round + 1))?;
            eprintln!("round {}: {}: {took:?}", round + 1, way.name);
            turns.entry(way.name).or_default().push(took);
        }
    }
    tell(&arguments.server, &ways, &turns);
    Ok(())
}

struct Bench<'a> {
    arguments: &'a Arguments,
    work: tempfile::TempDir,
    key: PathBuf,
    /// What mailrail stores of this mail: what the bare program uploads.
    stored: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(arguments: &'a Arguments) -> Result<Self> {
        let shared = Path::new("/dev/shm");
        let work = tempfile::Builder::new().prefix("mailrail-wire.").tempdir_in(if shared.is_dir() {
            shared.to_owned()
        } else {
            std::env::temp_dir()
        })?;
        let (key, stored) = (work.path().join("key"), work.path().join("stored"));
        fs::write(&key, [5; 32])?;
        Command::new("chmod").arg("600").arg(&key).status()?;
        let bench = Self { arguments, work, key, stored };
        let stored = bench.stored.display().to_string();
        measure::run(&mut bench.mailrail(256, &["push", &bench.source(), &stored]), &bench.work.path().join("log"))?;
        Ok(bench)
    }

    fn source(&self) -> String {
        format!("maildir:{}", self.arguments.mail.display())
    }

    fn mailrail(&self, budget: u32, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.arguments.mailrail);
        command
            .arg("--quiet")
            .arg("--memory")
            .arg(format!("{budget}MiB"))
            .arg("--key-file")
            .arg(&self.key)
            .args(arguments);
        command
    }

    fn turn(&self, way: &Way) -> Result<Turn> {
        let server =
            Server::start_in(&self.arguments.servers, &self.arguments.server).context("the server is not installed")?;
        let proxy = way.weather.clone().map(|weather| Proxy::start(server.address(), weather));
        let at = proxy.as_ref().map_or(server.address(), Proxy::address);
        let mut turn = match way.program {
            Program::Bare => self.bare(&server, at)?,
            Program::Mailrail => self.push_and_restore(way.budget, &server, at)?,
            Program::Restic => self.restic(&server, at)?,
        };
        turn.requests = proxy.as_ref().map_or(0, Proxy::requests);
        turn.settled = proxy.and_then(|proxy| settled(&proxy.answers()));
        Ok(turn)
    }

    fn run(&self, command: &mut Command) -> Result<Cost> {
        measure::run(command, &self.work.path().join("log"))
    }

    fn bare(&self, server: &Server, at: SocketAddr) -> Result<Turn> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare").arg(self.stored.join("packs")).arg(server.url()).args(pairs(server, at));
        Ok(Turn { push: self.run(&mut command)?, ..Turn::default() })
    }

    fn push_and_restore(&self, budget: u32, server: &Server, at: SocketAddr) -> Result<Turn> {
        let repository = format!("{}/wire", server.url());
        let with_options = |mut command: Command| {
            for pair in pairs(server, at) {
                command.arg("--store-option").arg(pair);
            }
            command
        };
        let push = self.run(&mut with_options(self.mailrail(budget, &["push", &self.source(), &repository])))?;
        let restored = self.work.path().join("restored");
        let sink = format!("maildir:{}", restored.display());
        let restore = self.run(&mut with_options(self.mailrail(budget, &["restore", &repository, &sink])))?;
        fs::remove_dir_all(restored)?;
        Ok(Turn { push, restore: Some(restore), ..Turn::default() })
    }

    fn restic(&self, server: &Server, at: SocketAddr) -> Result<Turn> {
        ensure!(server.url().starts_with("s3://"), "restic speaks S3 here");
        let restic = || {
            let mut command = Command::new("restic");
            let options: BTreeMap<String, String> = server.options_at(at).into_iter().collect();
            command
                .args(["--no-cache", "--quiet", "--repo"])
                .arg(format!("s3:http://{at}/{}/restic", server.url().trim_start_matches("s3://")))
                .env("RESTIC_PASSWORD", "none")
                .env("AWS_ACCESS_KEY_ID", &options["access_key_id"])
                .env("AWS_SECRET_ACCESS_KEY", &options["secret_access_key"]);
            command
        };
        self.run(restic().arg("init"))?;
        let push = self.run(restic().arg("backup").arg(&self.arguments.mail))?;
        let restored = self.work.path().join("restored");
        let restore = self.run(restic().args(["restore", "latest", "--target"]).arg(&restored))?;
        fs::remove_dir_all(restored)?;
        Ok(Turn { push, restore: Some(restore), ..Turn::default() })
    }
}

/// What is granted and refused from the tenth second on.
fn settled(answers: &[(Duration, bool)]) -> Option<(f64, f64)> {
    let from = answers.first()?.0 + Duration::from_secs(10);
    let behind: Vec<&(Duration, bool)> = answers.iter().filter(|(at, _)| *at >= from).collect();
    let seconds = (behind.last()?.0 - from).as_secs_f64();
    let refused = behind.iter().filter(|(_, is_refused)| *is_refused).count() as f64;
    let all = behind.len() as f64;
    Some(((all - refused) / seconds, refused / all))
}

fn pairs(server: &Server, at: SocketAddr) -> Vec<String> {
    server.options_at(at).into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// What any program would do that has the files already.
fn bare(directory: &Path, url: &str, options: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let options: BTreeMap<&str, &str> = options.iter().filter_map(|option| option.split_once('=')).collect();
    let store = open(url, &options)?;
    let files: Vec<PathBuf> = WalkDir::new(directory)
        .into_iter()
        .filter_map(|entry| entry.ok().filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path))
        .collect();
    runtime.block_on(async {
        let uploads = stream::iter(files).map(|file| {
            let store = &store;
            async move {
                let octets = fs::read(&file)?;
                let key = format!("bare/{}", file.file_name().unwrap_or_default().to_string_lossy());
                store.put(&key.into(), PutPayload::from(octets)).await?;
                Ok(())
            }
        });
        uploads.buffer_unordered(8).try_collect::<()>().await
    })
}

fn open(url: &str, options: &BTreeMap<&str, &str>) -> Result<Box<dyn ObjectStore>> {
    let (scheme, bucket) = url.split_once("://").context("an URL")?;
    Ok(match scheme {
        "s3" => Box::new(
            object_store::aws::AmazonS3Builder::new()
                .with_bucket_name(bucket)
                .with_endpoint(options["endpoint"])
                .with_region(options["region"])
                .with_access_key_id(options["access_key_id"])
                .with_secret_access_key(options["secret_access_key"])
                .with_allow_http(true)
                .build()?,
        ),
        "az" => Box::new(
            object_store::azure::MicrosoftAzureBuilder::new()
                .with_container_name(bucket)
                .with_endpoint(options["endpoint"].to_owned())
                .with_account(options["account_name"])
                .with_access_key(options["account_key"])
                .with_allow_http(true)
                .build()?,
        ),
        _ => bail!("{url} is neither S3 nor Azure"),
    })
}

fn tell(server: &str, ways: &[Way], turns: &BTreeMap<&str, Vec<Turn>>) {
    println!("\n## {server}\n\nMedians (least to most):\n");
    println!(
        "| | push: wall s | CPU s | peak MB | restore: wall s | peak MB | requests |\n|---|---:|---:|---:|---:|---:|---:|"
    );
    for way in ways {
        let spread = |figure: fn(&Turn) -> f64, digits| show(turns[way.name].iter().map(figure).collect(), digits);
        let restore = |turn: &Turn| turn.restore.unwrap_or_default();
        println!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            way.name,
            spread(|turn| turn.push.wall, 2),
            spread(|turn| turn.push.cpu, 2),
            spread(|turn| turn.push.peak / 1e6, 0),
            show(turns[way.name].iter().map(|turn| restore(turn).wall).collect(), 2),
            show(turns[way.name].iter().map(|turn| restore(turn).peak / 1e6).collect(), 0),
            spread(|turn| turn.requests as f64, 0),
        );
    }
    for (name, turn) in turns.iter().flat_map(|(name, turns)| turns.iter().map(move |turn| (name, turn))) {
        if let Some((granted, refused)) = turn.settled {
            println!(
                "\n{name}: {granted:.1} requests/s granted behind the first 10 s, {:.1} % refused",
                refused * 100.0
            );
        }
    }
    println!("\nWall time, ratios of one round:\n\n| | push | restore |\n|---|---:|---:|");
    for (name, to) in
        [("mailrail 256", "bare"), ("proxy, 50 ms", "proxy"), ("proxy, 10 % fail", "proxy"), ("restic, proxy", "proxy")]
    {
        let (Some(these), Some(those)) = (turns.get(name), turns.get(to)) else { continue };
        let ratios = |figure: fn(&Turn) -> f64| {
            these.iter().zip(those).map(|(this, that)| figure(this) / figure(that)).collect()
        };
        let restores = show(ratios(|turn| turn.restore.unwrap_or_default().wall), 2);
        println!("| {name} to {to} | {} | {restores} |", show(ratios(|turn| turn.push.wall), 2));
    }
}

fn show(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    let median = (values[last / 2] + values[values.len() / 2]) / 2.0;
    format!("{median:.digits$} ({:.digits$} to {:.digits$})", values[0], values[last])
}
