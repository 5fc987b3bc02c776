//! `mailrail demo`: the whole way of a small organisation's mail, there and back.

mod directory;
mod trees;

use crate::arguments::{Common, Demo};
use crate::failure::Failure;
use crate::output::{grouped, print, print_json, rate, size};
use crate::place::Place;
use crate::progress::Progress;
use crate::terminal::printable;
use crate::{Status, interrupt, push};
use directory::Workplace;
use futures::future::{Either, select};
use mailrail::organisation::Organisation;
use mailrail::store::FileStore;
use mailrail::transfer::Report;
use mailrail::{Engine, Protection, Repository, Settings};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

/// About how much mail the organisation has, in octets.
const ORGANISATION_BYTES: u64 = 48_000_000;
const MAILBOXES: u64 = 12;
const SEED: u64 = 1;

pub(crate) async fn run(common: &Common, arguments: Demo) -> Result<Status, Failure> {
    let interrupted = interrupt::first()?;
    let workplace = match arguments.directory {
        Some(directory) => Workplace::given(directory)?,
        None => Workplace::temporary()?,
    };
    let mut demo = Demonstration { common, place: workplace.path().to_owned(), steps: Vec::new() };
    // The workplace is dropped behind everything that works in it, and with it goes what is temporary.
    let outcome = match select(pin!(demo.run()), pin!(interrupted)).await {
        Either::Left((outcome, _)) => outcome?,
        Either::Right(_) => return Err(Failure::new("interrupted")),
    };
    if common.json {
        print_json(demo.as_json(&outcome))?;
    } else if !common.quiet {
        print(&demo.as_text(&outcome, workplace.is_temporary()))?;
    }
    Ok(Status::when(outcome.is_exact()))
}

/// A demonstration in progress.
struct Demonstration<'a> {
    common: &'a Common,
    place: PathBuf,
    steps: Vec<Step>,
}

/// A step that was taken.
struct Step {
    name: &'static str,
    elapsed: Duration,
    octets: u64,
}

/// What came of it all.
struct Outcome {
    mailboxes: u64,
    messages: u64,
    pushed: Report,
    /// What is not as it should be, for people: nothing, if all is well.
    faults: Vec<String>,
}

impl Outcome {
    fn is_exact(&self) -> bool {
        self.faults.is_empty()
    }
}

impl Demonstration<'_> {
    async fn run(&mut self) -> Result<Outcome, Failure> {
        let (mail, restored) = (self.place.join("mail"), self.place.join("restored"));
        let (source, sink) = (Place::maildir(mail.clone()), Place::maildir(restored.clone()));
        let mut faults = Vec::new();

        let organisation = Organisation::new(SEED).mailboxes(MAILBOXES).bytes(ORGANISATION_BYTES).build();
        let messages = organisation.message_count();
        self.begin(messages)?;
        let started = Instant::now();
        let target = mail.clone();
        let octets = blocking(move || Ok(organisation.write_maildirs(&target)?)).await?;
        self.end("make the mail", started, octets)?;

        let engine = self.engine().await?;
        let started = Instant::now();
        let transfer = engine.transfer(source.source()?);
        let (pushed, _) = push::drive(transfer, Progress::new(self.common, "pushing")).await?;
        self.end("push", started, octets)?;
        let stored = pushed.ledger.messages.stored;
        fault(&mut faults, pushed.ledger.is_complete() && stored == messages, "the push was not complete");

        let started = Instant::now();
        let report = engine.check().read_data(true).finish().await?;
        self.end("check all data", started, octets)?;
        fault(&mut faults, report.is_sound() && report.rebuilt == messages, "the repository is not sound");

        let started = Instant::now();
        let report = engine.restore(sink.sink()).finish().await?;
        self.end("restore", started, octets)?;
        fault(&mut faults, report.is_complete() && report.restored == messages, "the restore was not complete");

        let started = Instant::now();
        let report = engine.compare(source.source()?).finish().await?;
        self.end("compare source", started, octets)?;
        fault(&mut faults, report.is_same() && report.same == messages, "source and repository differ");

        // What the library says of itself is not asked here.
        let started = Instant::now();
        let trees = blocking(move || trees::compare(&mail, &restored)).await?;
        self.end("compare trees", started, octets)?;
        fault(&mut faults, trees.files >= messages, "files are missing");
        faults.extend(trees.differences);
        Ok(Outcome { mailboxes: MAILBOXES, messages, pushed, faults })
    }

    async fn engine(&self) -> Result<Engine, Failure> {
        let key = directory::make_key(&self.place.join("mailrail.key"))?;
        let store = FileStore::open_or_create(self.place.join("repository"))?;
        let repository = Repository::open_or_create(Arc::new(store), Protection::Key(key)).await?;
        self.common.engine(repository, Settings::default())
    }

    fn is_silent(&self) -> bool {
        self.common.json || self.common.quiet
    }

    fn begin(&self, messages: u64) -> Result<(), Failure> {
        if self.is_silent() {
            return Ok(());
        }
        let mailboxes = grouped(MAILBOXES);
        let size = size(ORGANISATION_BYTES);
        print(&format!(
            "A synthetic organisation: {mailboxes} mailboxes, {} messages, about {size} of mail\n\n  {:<24}{:>9}{:>13}\n",
            grouped(messages),
            "step",
            "seconds",
            "speed"
        ))
    }

    fn end(&mut self, name: &'static str, started: Instant, octets: u64) -> Result<(), Failure> {
        let elapsed = started.elapsed();
        self.steps.push(Step { name, elapsed, octets });
        if self.is_silent() {
            return Ok(());
        }
        print(&format!("  {name:<24}{:>9.2}{:>13}\n", elapsed.as_secs_f64(), rate(octets, elapsed)))
    }

    fn as_text(&self, outcome: &Outcome, is_temporary: bool) -> String {
        let saved = Saved::of(&outcome.pushed);
        let mut text = format!("\n  {:<24}{:>14}{:>10}{:>9}\n", "", "octets", "", "share");
        for (name, octets) in [
            ("mail", saved.mail),
            ("saved by deduplication", saved.by_deduplication),
            ("saved by compression", saved.by_compression),
            ("stored", saved.stored),
        ] {
            let share = 100.0 * octets as f64 / saved.mail.max(1) as f64;
            text += &format!("  {name:<24}{:>14}{:>10}{share:>7.1} %\n", grouped(octets), size(octets));
        }
        text += &format!("\n  {:<24}{:>14}\n", "messages", grouped(outcome.messages));
        text += &format!("  {:<24}{:>14}\n", "mailboxes", grouped(outcome.mailboxes));
        for fault in outcome.faults.iter().take(20) {
            text += &format!("  not as it should be: {}\n", printable(fault));
        }
        let answer = if outcome.is_exact() { "yes" } else { "no" };
        text += &format!("\nEvery message came back byte for byte: {answer}\n");
        text += "With your own mail: mailrail push maildir:DIR REPOSITORY --key-file mail.key\n";
        if !is_temporary {
            text += &look_around(&self.place);
        }
        text
    }

    fn as_json(&self, outcome: &Outcome) -> serde_json::Value {
        let saved = Saved::of(&outcome.pushed);
        let steps: Vec<_> = self.steps.iter().map(Step::as_json).collect();
        json!({
            "schema": 1,
            "mailboxes": outcome.mailboxes,
            "messages": outcome.messages,
            "bytes": {
                "mail": saved.mail,
                "saved_by_deduplication": saved.by_deduplication,
                "saved_by_compression": saved.by_compression,
                "stored": saved.stored,
            },
            "steps": steps,
            "byte_for_byte": outcome.is_exact(),
            "faults": outcome.faults,
            "peak_budget_bytes": outcome.pushed.peak_budget_bytes,
        })
    }
}

impl Step {
    fn as_json(&self) -> serde_json::Value {
        json!({ "name": self.name, "seconds": self.elapsed.as_secs_f64(), "bytes": self.octets })
    }
}

/// Where the octets of the mail went.
struct Saved {
    mail: u64,
    by_deduplication: u64,
    /// By compression, and by not storing base64 as text.
    by_compression: u64,
    stored: u64,
}

impl Saved {
    fn of(report: &Report) -> Self {
        let bytes = &report.ledger.bytes;
        Self {
            mail: bytes.read,
            by_deduplication: bytes.duplicate,
            by_compression: bytes.read.saturating_sub(bytes.duplicate + bytes.written),
            stored: bytes.written,
        }
    }
}

fn look_around(place: &Path) -> String {
    format!(
        "To look around: {} has mail, repository, mailrail.key, restored\n",
        printable(&place.display().to_string())
    )
}

fn fault(faults: &mut Vec<String>, is_well: bool, what: &str) {
    if !is_well {
        faults.push(what.to_owned());
    }
}

/// Runs what blocks on a thread for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    spawn_blocking(work).await.map_err(|source| Failure::of("a thread failed", &source))?
}
