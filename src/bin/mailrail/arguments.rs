//! What the command understands.

use crate::failure::Failure;
use crate::place::{self, Place};
use crate::{secret, values};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use mailrail::message::MailboxName;
use mailrail::repository::{RunId, Seams, SlotId};
use mailrail::store::{Governor, GovernorSettings, Prices, StoreOptions, StoreUrl, Writers};
use mailrail::{Compression, Engine, Protection, Repository, Resources, Settings};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

/// The environment's way to name a key file.
const KEY_FILE: &str = "MAILRAIL_KEY_FILE";

/// An index on disk takes one part in this many of the memory.
const INDEX_SHARE: u64 = 4;

/// The environment's way to give a passphrase.
const PASSWORD: &str = "MAILRAIL_PASSWORD";

const AFTER_HELP: &str = "\
Exit status:
  0  complete: everything is as it should be
  1  failed: it could not be done
  2  wrong usage
  3  finished, but not everything is as it should be (messages in quarantine, renamed, damaged, different, pending): the command says what

A first try:  mailrail demo
A key:        head -c 32 /dev/urandom > mail.key && chmod 600 mail.key
A backup:     mailrail push maildir:/var/mail /backup/mail --key-file mail.key";

/// Moves mail in bulk: into a deduplicating, compressed, encrypted repository, and back out of it byte for byte.
#[derive(Debug, Parser)]
#[command(name = "mailrail", version, after_help = AFTER_HELP, max_term_width = 120)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Moves what is new in a source into a repository.
    Push(Push),
    /// Restores mail from a repository, each message verified.
    Restore(Restore),
    /// Reads a source anew and tells in what it and a repository differ.
    Compare(Compare),
    /// Checks that a repository is what was written.
    Check(Check),
    /// Makes anew what is derived, and finds elsewhere what damaged packs held.
    Repair(Repair),
    /// Restores all that can still be had of a damaged repository.
    Recover(Recover),
    /// Lists mailboxes, or the messages of one.
    Ls(Ls),
    /// Tells what a repository holds and takes, and how its runs went.
    Stats(Stats),
    /// Lists messages that could not be read in full, or exports what could be read of them.
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Records that somebody looked at a run that is neither perfect nor good, and why it is good enough.
    Approve(Approve),
    /// Adds, removes, lists and changes the keys that open a repository. What is stored is not touched.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Forgets mailboxes, or what they held before a time. What is forgotten goes with the next sweep.
    Forget(Forget),
    /// Deletes what nobody needs any more. Others may push meanwhile.
    Sweep(Sweep),
    /// Makes a small synthetic organisation, pushes, checks, restores and compares it, and tells what was saved.
    Demo(Demo),
}

/// Options of all commands.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// The file with the repository's key: exactly 32 raw octets. (Or name it in MAILRAIL_KEY_FILE.)
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A file whose first line is the repository's passphrase. (Or give the passphrase in MAILRAIL_PASSWORD.)
    #[arg(long, global = true, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Print one JSON object at the end instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The most memory for mail in flight, at least 32MiB.
    #[arg(long, global = true, value_name = "SIZE", default_value = "256MiB", value_parser = values::memory)]
    memory: u64,
    /// Worker threads. [default: one for each core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Keep the dedup index in this directory: for repositories of tens of millions of attachments. It takes a quarter of the memory, and is made anew if it is lost.
    #[arg(long, global = true, value_name = "DIR")]
    index: Option<PathBuf>,
    /// An option of the repository's store, such as endpoint=https://s3.example or region=eu-west-2. Can be given more than once. (Credentials are better in the environment: others see this.)
    #[arg(long = "store-option", global = true, value_name = "NAME=VALUE", value_parser = values::store_option)]
    store_options: Vec<(String, String)>,
    /// I vouch that no two processes ever write to the repository at once: for a store that can tell none of two writers that the other came first. Without that, such a store is refused.
    #[arg(long, global = true)]
    single_writer: bool,
    /// The most octets a second to and from the repository together, as 50MB/s.
    #[arg(long, global = true, value_name = "SIZE/s", value_parser = values::bandwidth)]
    bandwidth: Option<u64>,
    /// The most requests a second to the repository.
    #[arg(long, global = true, value_name = "N", value_parser = values::requests)]
    requests: Option<f64>,
    /// A price list for requests, by which the account tells what they cost: a JSON object as in docs/throughput.md.
    #[arg(long, global = true, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// No progress and no account; warnings and errors only. (What `ls` and `stats` were asked for, they print.)
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Push {
    /// Where the mail is: maildir:DIR (all Maildirs under it), mbox:PATH (a file or a tree of them), eml:DIR (a tree of files).
    #[arg(value_parser = a_place())]
    pub(crate) source: Place,
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://). Created if there is nothing.
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
    /// Create the repository without encryption, or push to one that has none whatever the environment says.
    #[arg(long)]
    pub(crate) no_encryption: bool,
    /// Trust no evidence (names, sizes, times): read every message again, and store again what damaged packs held.
    #[arg(long)]
    pub(crate) reread: bool,
    /// How hard to compress: adaptive, which is lightly unless there is time for more, or a level from 1 to 19.
    #[arg(long, value_name = "LEVEL", default_value = "adaptive", value_parser = values::compression)]
    pub(crate) compression: Compression,
    /// End the run when more messages than this could not be read: what has begun is committed.
    #[arg(long, value_name = "N")]
    pub(crate) max_quarantined: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
    /// Where the mail goes: maildir:DIR, mbox:DIR or eml:DIR. Nothing that is there is overwritten.
    #[arg(value_parser = a_place())]
    pub(crate) sink: Place,
    /// Restore this mailbox only. Can be given more than once.
    #[arg(long = "mailbox", value_name = "NAME", value_parser = a_mailbox())]
    pub(crate) mailboxes: Vec<MailboxName>,
    /// Restore what was there at this time: RFC 3339 (2026-11-22T10:00:00Z), or @SECONDS[.FRACTION] since 1970.
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub(crate) at: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct Compare {
    /// Where the mail is: maildir:DIR, mbox:PATH or eml:DIR.
    #[arg(value_parser = a_place())]
    pub(crate) source: Place,
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
}

#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
    /// Read every pack, verify every blob, and rebuild every message.
    #[arg(long)]
    pub(crate) read_data: bool,
    /// With --read-data: do not mark damaged packs. (Marked, nothing new points at them, and their content is stored again when it is met.)
    #[arg(long, requires = "read_data")]
    pub(crate) no_marks: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Repair {
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
    /// Read every pack to find what is damaged, not only those that a check has marked.
    #[arg(long)]
    pub(crate) read_data: bool,
    /// Give up commits that cannot be read, so that their mailboxes can be pushed to again. What they held, older states, and messages that had gone from the source are
    /// forgotten: recover first.
    #[arg(long)]
    pub(crate) give_up: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Recover {
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://). Nothing is written to it.
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
    /// Where the mail goes: maildir:DIR, mbox:DIR or eml:DIR. Nothing that is there is overwritten.
    #[arg(value_parser = a_place())]
    pub(crate) sink: Place,
}

#[derive(Args, Debug)]
pub(crate) struct Ls {
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
    /// List the messages of this mailbox.
    #[arg(value_parser = a_mailbox())]
    pub(crate) mailbox: Option<MailboxName>,
    /// List what was there at this time: RFC 3339 (2026-11-22T10:00:00Z), or @SECONDS[.FRACTION] since 1970.
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub(crate) at: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct Stats {
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
    /// Try whether the store keeps what writers rely on, and tell only that. It writes some 300 kB, and deletes them. There need not be a repository.
    #[arg(long)]
    pub(crate) probe: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// Lists the messages in quarantine, with the reason of each.
    Ls {
        /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
        #[arg(value_parser = a_repository())]
        repository: StoreUrl,
        /// Only those of this mailbox.
        #[arg(value_parser = a_mailbox())]
        mailbox: Option<MailboxName>,
    },
    /// Writes what could be read of the messages in quarantine to files. None of them is the message that it was.
    Export {
        /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
        #[arg(value_parser = a_repository())]
        repository: StoreUrl,
        /// Where the files go: MAILBOX/FOLDER/MESSAGE below this directory. Nothing that is there is overwritten.
        directory: PathBuf,
        /// Only those of this mailbox. Can be given more than once.
        #[arg(long = "mailbox", value_name = "NAME", value_parser = a_mailbox())]
        mailboxes: Vec<MailboxName>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Approve {
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
    /// The run, as `push` and `stats` name it.
    pub(crate) run: RunId,
    /// Why it is good enough.
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Adds a key: from then on it opens the repository as well.
    Add(KeyAdd),
    /// Removes a key. The last one stays.
    #[command(visible_alias = "rm")]
    Remove(KeyRemove),
    /// Lists the keys.
    #[command(visible_alias = "list")]
    Ls(KeyLs),
    /// Puts a new key in the place of the one that is used to open the repository: adds it, sees that it opens, then removes the old one.
    Rotate(KeyAdd),
}

#[derive(Args, Debug)]
pub(crate) struct KeyAdd {
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
    /// The new key: a file of exactly 32 raw octets.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "new_password_file",
        conflicts_with = "new_password_file"
    )]
    pub(crate) new_key_file: Option<PathBuf>,
    /// The new passphrase: the first line of this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) new_password_file: Option<PathBuf>,
    /// What the key is for, at most 255 octets. Nobody can read it without a key.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) label: String,
}

#[derive(Args, Debug)]
pub(crate) struct KeyRemove {
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
    /// The key's id, as `key ls` has it.
    pub(crate) id: SlotId,
    /// Remove it even if it is the key that is used to open the repository now.
    #[arg(long)]
    pub(crate) even_in_use: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeyLs {
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
}

#[derive(Args, Debug)]
pub(crate) struct Forget {
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
    /// Forget this mailbox, or with --before what it held. Can be given more than once.
    #[arg(long = "mailbox", value_name = "NAME", value_parser = a_mailbox(), conflicts_with = "all")]
    pub(crate) mailboxes: Vec<MailboxName>,
    /// Every mailbox. Needed to forget all of them; with --before it changes nothing.
    #[arg(long)]
    pub(crate) all: bool,
    /// Keep the mailboxes, and forget what was before this time and no longer there then: RFC 3339 (2026-11-22T10:00:00Z), or @SECONDS[.FRACTION].
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub(crate) before: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct Sweep {
    /// The repository: a directory, or an URL (s3://BUCKET/PREFIX, az://, gs://, file://).
    #[arg(value_parser = a_repository())]
    pub(crate) repository: StoreUrl,
    /// Delete nothing, and tell what would be deleted.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// I vouch that nobody else writes to the repository, and that no push which was interrupted goes on. (Only after damage of a run's record a sweep asks for this.)
    #[arg(long)]
    pub(crate) alone: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Where to work, and to leave everything for a look: absent, or empty. Without it, a temporary directory is used and removed.
    pub(crate) directory: Option<PathBuf>,
}

impl Common {
    /// The key, if one was given. The command line goes before the environment.
    pub(crate) fn key(&self) -> Result<Option<Protection>, Failure> {
        if self.key_file.is_some() && self.password_file.is_some() {
            return Err(Failure::usage("--key-file and --password-file exclude each other"));
        }
        if self.names_key() {
            return secret::of_files(self.key_file.as_deref(), self.password_file.as_deref());
        }
        let from_environment = |name| env::var_os(name).filter(|value| !value.is_empty());
        match (from_environment(KEY_FILE), from_environment(PASSWORD)) {
            (Some(_), Some(_)) => Err(Failure::usage(format!(
                "{KEY_FILE} and {PASSWORD} are both set; give one of them, or --key-file or --password-file"
            ))),
            (Some(path), None) => secret::of_files(Some(path.as_ref()), None),
            (None, Some(password)) => secret::of_environment(password).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// How to speak to the repository's store: as the environment says, and these options before it.
    pub(crate) fn store_options(&self) -> StoreOptions {
        let writers = if self.single_writer { Writers::One } else { Writers::Any };
        let environment = StoreOptions::from_environment().writers(writers);
        self.store_options.iter().fold(environment, |options, (name, value)| options.option(name, value))
    }

    /// Whether a key was given on the command line.
    pub(crate) fn names_key(&self) -> bool {
        self.key_file.is_some() || self.password_file.is_some()
    }

    /// How the repository of this URL deals with the world. One whose store is this computer's own is governed only if an option asks for it.
    pub(crate) fn seams(&self, url: &StoreUrl) -> Result<Seams, Failure> {
        let mut seams = Seams::default();
        let by_url = url.governing(&self.store_options())?;
        if by_url.is_some() || self.bandwidth.is_some() || self.requests.is_some() || self.prices.is_some() {
            let free = || {
                let mut settings = GovernorSettings::default();
                settings.prices = Prices::FREE;
                settings
            };
            let mut settings = by_url.unwrap_or_else(free);
            (settings.bandwidth, settings.requests) = (self.bandwidth, self.requests);
            if let Some(path) = &self.prices {
                settings.prices = price_list(path)?;
            }
            seams.governor = Some(Governor::new(settings));
        }
        Ok(seams)
    }

    /// An engine of these options for a repository.
    pub(crate) fn engine(&self, repository: Repository, settings: Settings) -> Result<Engine, Failure> {
        let threads = match self.threads {
            Some(threads) => threads.into(),
            None => thread::available_parallelism().map_or(1, usize::from),
        };
        let mut resources = Resources::with(self.memory, threads)?;
        if let Some(directory) = &self.index {
            resources = resources.index_in(directory, self.memory / INDEX_SHARE)?;
        }
        Ok(Engine::builder(repository).resources(resources).settings(settings).build()?)
    }
}

/// Reads a price list.
fn price_list(path: &Path) -> Result<Prices, Failure> {
    let text = fs::read(path).map_err(|source| Failure::of(format!("reading '{}'", path.display()), &source))?;
    let prices: Prices = serde_json::from_slice(&text)
        .map_err(|source| Failure::of(format!("'{}' is no price list", path.display()), &source))?;
    match [prices.class_a_per_1000, prices.class_b_per_1000].iter().all(|price| *price >= 0.0) {
        true => Ok(prices),
        false => Err(Failure::new(format!("'{}' is no price list: a price is below zero", path.display()))),
    }
}

fn a_place() -> impl TypedValueParser<Value = Place> {
    OsStringValueParser::new().try_map(Place::parse)
}

fn a_repository() -> impl TypedValueParser<Value = StoreUrl> {
    OsStringValueParser::new().try_map(place::repository)
}

fn a_mailbox() -> impl TypedValueParser<Value = MailboxName> {
    OsStringValueParser::new().map(|name| MailboxName::new(values::octets(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
