//! Runs whole commands on the same mail, in turn, and prints what each took: mailrail, others that store mail or files without repeating them, and a
//! roofline, which is the least that could be done.
//!
//! Rounds are run in turn, each beginning with another tool, and ratios are of one round: a machine that is busy halves every figure, but hardly a
//! ratio. See docs/performance.md for the method and the results.

mod mail;
mod measure;
mod rounds;
mod tools;

use anyhow::{Context, Result, bail};
use clap::Parser;
use mail::{Place, Tree};
use rounds::{Figure, Measured, Rounds, Spread, What};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tools::{Places, Tool};
use walkdir::WalkDir;

/// Measures mailrail beside other tools on the same mail.
#[derive(Parser)]
struct Arguments {
    /// Mail to push, instead of a synthetic organisation
    #[arg(value_name = "KIND:DIRECTORY")]
    trees: Vec<Place>,
    /// The size of the organisation, in MB
    #[arg(long, default_value_t = 1450)]
    megabytes: u64,
    /// Push so many copies of the mail given, each with another header field
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Rounds in which every tool has its turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// These tools only, of mailrail, roofline, restic, rustic, borg, "tar | zstd", dovecot
    #[arg(long, value_delimiter = ',')]
    tools: Vec<String>,
    /// A mailrail that is built already
    #[arg(long)]
    mailrail: Option<PathBuf>,
    /// Where to work; in memory, if /dev/shm has the room
    #[arg(long)]
    work: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let built = Built::new(arguments.mailrail.as_deref())?;
    let tools = chosen(Tool::all(&built.mailrail, &built.roofline), &arguments.tools)?;
    let parent = arguments.work.clone().unwrap_or_else(|| {
        let shared = PathBuf::from("/dev/shm");
        if shared.is_dir() { shared } else { std::env::temp_dir() }
    });
    let work = tempfile::Builder::new().prefix("mailrail-compare.").tempdir_in(&parent)?;
    let mut trees = Vec::new();
    for place in &arguments.trees {
        trees.push(Tree::copied(place, arguments.repeat, work.path())?);
    }
    if trees.is_empty() {
        trees.push(Tree::generated(arguments.megabytes, &built.generator, work.path())?);
    }
    for tree in &trees {
        let tools: Vec<&Tool> = tools.iter().filter(|tool| tree.kind == "maildir" || !tool.wants_maildirs).collect();
        let rounds = compare(tree, &tools, arguments.rounds, work.path())?;
        tell(tree, &tools, &rounds);
    }
    Ok(())
}

/// What is built of this repository.
struct Built {
    mailrail: PathBuf,
    generator: PathBuf,
    roofline: PathBuf,
}

impl Built {
    fn new(mailrail: Option<&Path>) -> Result<Self> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let build =
            ["build", "--release", "--quiet", "--features", "cli", "--bin", "mailrail", "--example", "organisation"];
        if !Command::new("cargo").args(build).current_dir(&package).status()?.success() {
            bail!("mailrail was not built");
        }
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| package.join("target"), PathBuf::from).join("release");
        let roofline = std::env::current_exe()?.with_file_name("roofline");
        if !roofline.exists() {
            bail!("{} is not built: cargo build --release builds it", roofline.display());
        }
        Ok(Self {
            mailrail: mailrail.map_or_else(|| target.join("mailrail"), Path::to_path_buf),
            generator: target.join("examples/organisation"),
            roofline,
        })
    }
}

/// The tools that were asked for, or all; without those that are not installed.
fn chosen(all: Vec<Tool>, names: &[String]) -> Result<Vec<Tool>> {
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|tool| tool.name == name.as_str())) {
        bail!("there is no tool of the name {unknown}");
    }
    let is_chosen = |tool: &Tool| names.is_empty() || names.iter().any(|name| name == tool.name);
    let is_installed = |tool: &Tool| {
        let version = tool.version();
        eprintln!("{}: {}", tool.name, version.as_deref().unwrap_or("not installed, left out"));
        version.is_some()
    };
    Ok(all.into_iter().filter(|tool| is_chosen(tool) && is_installed(tool)).collect())
}

fn compare(tree: &Tree, tools: &[&Tool], count: usize, work: &Path) -> Result<Rounds> {
    let mut rounds = Rounds::default();
    for round in 0..count {
        for turn in 0..tools.len() {
            let tool = tools[(round + turn) % tools.len()];
            let room = tempfile::Builder::new().prefix("round.").tempdir_in(work)?;
            turn_of(tool, tree, room.path(), &mut rounds)
                .with_context(|| format!("{} in round {}", tool.name, round + 1))?;
        }
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        eprintln!(
            "{}: round {} of {count} (load {})",
            tree.name,
            round + 1,
            load.split(' ').next().unwrap_or_default()
        );
    }
    Ok(rounds)
}

/// One turn of one tool: pushes, pushes again, restores, and sees that what was restored is what was pushed.
fn turn_of(tool: &Tool, tree: &Tree, room: &Path, rounds: &mut Rounds) -> Result<()> {
    let log = room.join("log");
    let places = Places {
        repository: room.join("repository"),
        restored: room.join("restored"),
        cache: room.join("cache"),
        key: room.join("key"),
    };
    make_key(&places.key)?;
    fs::create_dir(&places.cache)?;
    if let Some(mut init) = tool.init(tree, &places) {
        measure::run(&mut init, &log)?;
    }
    let mut measure = |what, command: &mut Command| -> Result<()> {
        let cost = measure::run(command, &log)?;
        rounds.add(what, tool.name, Measured { cost, stored: stored(&places.repository)? });
        Ok(())
    };
    measure(What::Push, &mut tool.push(tree, &places))?;
    if tool.pushes_again {
        measure(What::Again, &mut tool.push(tree, &places))?;
    }
    fs::create_dir(&places.restored)?;
    let Some(mut restore) = tool.restore(tree, &places) else { return Ok(()) };
    measure(What::Restore, &mut restore)?;
    let restored = match tool.restores_whole_paths {
        true => places.restored.join(tree.path.strip_prefix("/")?),
        false => places.restored,
    };
    let same = Command::new("diff").args(["-r", "-q"]).arg(&tree.path).arg(&restored).output()?;
    if !same.status.success() {
        bail!("what was restored is not what was pushed: {}", String::from_utf8_lossy(&same.stdout));
    }
    Ok(())
}

/// A key file as mailrail takes it, which nobody else can read.
fn make_key(path: &Path) -> Result<()> {
    use std::io::{Read, Write};
    use std::os::unix::fs::OpenOptionsExt;
    let mut octets = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut octets)?;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(&octets)?;
    Ok(())
}

/// The lengths of all files, each once, however many names it has.
fn stored(directory: &Path) -> Result<f64> {
    use std::os::unix::fs::MetadataExt;
    let (mut octets, mut seen) = (0, HashSet::new());
    for entry in WalkDir::new(directory) {
        let entry = entry?;
        if entry.file_type().is_file() {
            let metadata = entry.metadata()?;
            octets += if seen.insert((metadata.dev(), metadata.ino())) { metadata.len() } else { 0 };
        }
    }
    Ok(octets as f64)
}

fn tell(tree: &Tree, tools: &[&Tool], rounds: &Rounds) {
    println!("\n## {}: {:.0} MB, {} files, as {}\n", tree.name, tree.octets as f64 / 1e6, tree.files, tree.kind);
    println!("Medians (least to most):\n");
    for what in What::ALL {
        println!("| {what} | wall s | CPU s | peak MB | stored MB |\n|---|---:|---:|---:|---:|");
        for tool in tools {
            let told =
                Figure::ALL.map(|figure| rounds.figures(what, tool.name, figure).map(|spread| figures(figure, spread)));
            if let [Some(wall), Some(cpu), Some(peak), Some(stored)] = told {
                println!("| {} | {wall} | {cpu} | {peak} | {stored} |", tool.name);
            }
        }
        println!();
    }
    for to in ["mailrail", "roofline"].into_iter().filter(|to| tools.iter().any(|tool| tool.name == *to)) {
        println!("Ratios to {to}'s in the same round, medians (least to most):\n");
        println!("| | wall | CPU | peak | stored |\n|---|---:|---:|---:|---:|");
        for (what, tool) in What::ALL.iter().flat_map(|what| tools.iter().map(move |tool| (*what, tool))) {
            let told =
                Figure::ALL.map(|figure| rounds.ratios(what, tool.name, to, figure).map(|spread| show(spread, 2)));
            if let ([Some(wall), Some(cpu), Some(peak), Some(stored)], true) = (told, tool.name != to) {
                println!("| {what}: {} | {wall} | {cpu} | {peak} | {stored} |", tool.name);
            }
        }
        println!();
    }
}

fn figures(figure: Figure, spread: Spread) -> String {
    match figure {
        Figure::Wall | Figure::Cpu => show(spread, 2),
        Figure::Peak => show(spread.scaled(1e-6), 0),
        Figure::Stored => show(spread.scaled(1e-6), 1),
    }
}

fn show(spread: Spread, digits: usize) -> String {
    let Spread { least, median, most } = spread;
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}
