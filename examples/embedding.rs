//! An embedding service: a host of mail keeps the mailboxes of many tenants, each in a repository of its own under a key of its own.
//!
//! What there is to see here:
//!
//! - one [`Resources`] for the whole process: however many tenants are moved at once, they share its memory and its workers;
//! - an [`Engine`] for each tenant, made when it is needed: it costs next to nothing;
//! - transfers side by side, with their progress and their reports;
//! - a shutdown in good order, and a next run that goes on where it stopped.
//!
//! Run it with `cargo run --example embedding`.

use mailrail::ledger::Ledger;
use mailrail::message::MailboxName;
use mailrail::sink::DryRun;
use mailrail::source::{Memory, SourceId};
use mailrail::store::{MemoryStore, Store};
use mailrail::transfer::{Report, Settled};
use mailrail::{Engine, ErrorKind, Key, Protection, Repository, Resources, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// One customer: where the mail comes from, where it goes, and the key that nobody else has.
#[derive(Clone)]
struct Tenant {
    name: String,
    key: Key,
    /// Memory here; a [`FileStore`](mailrail::store::FileStore), or a bucket with a prefix for each tenant, in earnest.
    store: Arc<dyn Store>,
    /// Memory here, too; a [`Maildir`](mailrail::source::Maildir) or a source of your own in earnest.
    mail: Memory,
}

impl Tenant {
    /// Opens the tenant's repository. The first time, it is created.
    async fn open(&self, resources: &Resources) -> Result<Engine> {
        let protection = Protection::Key(self.key.clone());
        let repository = Repository::open_or_create(Arc::clone(&self.store), protection).await?;
        Engine::builder(repository).resources(resources.clone()).build()
    }
}

/// What the process has once.
#[derive(Clone)]
struct Service {
    resources: Resources,
    /// Holds `true` from the moment on when the process is asked to end.
    stop: watch::Sender<bool>,
}

impl Service {
    /// The most memory that mail takes, whatever the tenants send: 64 MiB. That is enough for a transfer or two; the others wait their turn.
    const MEMORY: u64 = 64 << 20;

    fn new() -> Result<Self> {
        let resources = Resources::with(Self::MEMORY, 2)?.uploads(4);
        Ok(Self { resources, stop: watch::Sender::new(false) })
    }

    /// Moves what is new of one tenant's mail, and keeps `progress` at what has become of it so far.
    async fn push(self, tenant: Tenant, progress: watch::Sender<Ledger>) -> Result<Report> {
        let engine = tenant.open(&self.resources).await?;
        let mut transfer = engine.transfer(tenant.mail.clone()).shutdown_on(self.stopped());
        // Outcomes come one for each message, when it is durable. Who does not need them calls `finish` at once.
        while let Some(outcome) = transfer.next().await {
            if let Settled::Quarantined { reason } = outcome.settled {
                eprintln!("{}: a message in {} could not be read: {reason:?}", tenant.name, outcome.mailbox);
            }
            progress.send_replace(transfer.ledger().clone());
        }
        transfer.finish().await
    }

    /// Resolves when the service is asked to end, or is gone.
    fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.stop.subscribe();
        async move {
            let _ = stop.wait_for(|stop| *stop).await;
        }
    }

    /// Begins a push for each tenant, all at once. Gives the pushes, and each tenant's progress by name.
    fn push_all(&self, tenants: &[Tenant]) -> (Pushes, BTreeMap<String, Progress>) {
        let (mut pushes, mut board) = (JoinSet::new(), BTreeMap::new());
        for tenant in tenants {
            let (sender, progress) = watch::channel(Ledger::default());
            board.insert(tenant.name.clone(), progress);
            let push = self.clone().push(tenant.clone(), sender);
            let name = tenant.name.clone();
            pushes.spawn(async move { (name, push.await) });
        }
        (pushes, board)
    }
}

/// Pushes under way, each with its tenant's name.
type Pushes = JoinSet<(String, Result<Report>)>;

/// The latest account of a transfer under way; only the latest counts, so whoever is slow to look holds nobody up.
type Progress = watch::Receiver<Ledger>;

// The runtime only hands finished buffers about, so one thread is enough for it: what computes or blocks is done by the threads of `Resources`.
#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let tenants: Vec<Tenant> = (1..=12).map(tenant).collect();

    // The first evening: everything is new.
    let service = Service::new()?;
    let (pushes, mut board) = service.push_all(&tenants);
    if let Some(progress) = board.get_mut("tenant-01") {
        // A service would show the board whenever somebody asks. Here, somebody asks when the first messages of one tenant are durable.
        progress.changed().await?;
        println!("tenant-01 so far: {} stored, {} under way", stored(progress), progress.borrow().messages.pending);
    }
    let reports = join(pushes).await?;
    for (name, report) in &reports {
        let Ledger { messages, bytes, .. } = &report.ledger;
        println!("{name}: {} messages, {} octets read, {} written", messages.stored, bytes.read, bytes.written);
        assert!(report.ledger.is_complete());
        assert!(report.peak_budget_bytes <= Service::MEMORY);
    }
    assert_eq!(total(&reports), 12 * 40);

    // The second evening: some mail is new, and in the midst of it the process is asked to end. Nobody can say how far each transfer got,
    // except for its report: what it calls stored is stored, what it calls pending is not, and nothing else was seen.
    tenants.iter().for_each(|tenant| deliver(tenant, 40..50));
    let (pushes, mut board) = service.push_all(&tenants);
    if let Some(progress) = board.get_mut("tenant-07") {
        progress.changed().await?;
    }
    service.stop.send_replace(true);
    let stopped = join(pushes).await?;
    let count = stopped.values().filter(|report| report.stopped).count();
    println!("Stopped: {count} transfers had not come to their end, {} messages were stored.", total(&stopped));

    // The next process goes on where that one stopped. Nothing is read twice that was stored.
    let service = Service::new()?;
    let (pushes, _) = service.push_all(&tenants);
    let resumed = join(pushes).await?;
    println!("Resumed: {} messages were stored.", total(&resumed));
    assert!(resumed.values().all(|report| report.ledger.is_complete() && !report.stopped));
    assert_eq!(total(&stopped) + total(&resumed), 12 * 10);

    // Every message can be had back: a dry run fetches, opens and verifies each, and keeps none.
    let engine = tenants[0].open(&service.resources).await?;
    let restored = engine.restore(DryRun::new()).finish().await?;
    assert!(restored.is_complete());
    assert_eq!(restored.restored, 50);
    println!("tenant-01 has {} messages, each verified.", restored.restored);

    // And nobody opens what is another's.
    let stranger = Tenant { key: tenants[1].key.clone(), ..tenants[0].clone() };
    let refused = stranger.open(&service.resources).await.map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::Key));
    println!("The key of tenant-02 does not open it.");
    Ok(())
}

/// Waits for all pushes. The first one that failed as a whole ends the wait; a service would note it and go on with the others.
async fn join(mut pushes: Pushes) -> std::result::Result<BTreeMap<String, Report>, Box<dyn std::error::Error>> {
    let mut reports = BTreeMap::new();
    while let Some(pushed) = pushes.join_next().await {
        let (name, report) = pushed?;
        reports.insert(name, report?);
    }
    Ok(reports)
}

fn stored(progress: &Progress) -> u64 {
    progress.borrow().messages.stored
}

fn total(reports: &BTreeMap<String, Report>) -> u64 {
    reports.values().map(|report| report.ledger.messages.stored).sum()
}

/// A tenant with two mailboxes and 40 messages. In earnest, keys are drawn at random and kept where keys are kept.
fn tenant(number: u8) -> Tenant {
    let tenant = Tenant {
        name: format!("tenant-{number:02}"),
        key: Key::new([number; 32]),
        store: Arc::new(MemoryStore::new()),
        // The id is the same on every run: by it, a repository knows which of its mail is no longer there.
        mail: Memory::new(SourceId::of("embedding", &[number])),
    };
    deliver(&tenant, 0..40);
    tenant
}

/// New mail for a tenant: even numbers to one mailbox, odd ones to the other.
fn deliver(tenant: &Tenant, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let mailbox = MailboxName::new(if number % 2 == 0 { "ada" } else { "grace" });
        let name = &tenant.name;
        let mut text = format!("From: someone@{name}.example\r\nSubject: number {number}\r\n\r\n");
        text += &"All of us have had this file for years.\r\n".repeat(2000);
        tenant.mail.put(&mailbox, "Archive", format!("message-{number}"), text);
    }
}
