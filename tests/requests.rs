//! What a transfer asks of a store: how many requests for how much mail, at what pace, and what it tells of where its time went.
//!
//! A figure of a pace over time for docs: `MAILRAIL_PACE_PLOT=docs/pace.svg cargo test --all-features --test requests`
#![cfg(feature = "testing")]

mod common;

use common::noise;
use futures::StreamExt;
use futures::future::join;
use mailrail::message::MailboxName;
use mailrail::repository::Seams;
use mailrail::runtime::{Clock, Timer};
use mailrail::source::Kind;
use mailrail::source::{Memory, SourceId};
use mailrail::store::{Governor, GovernorSettings, MemoryStore, Multipart, Store};
use mailrail::testing::sink;
use mailrail::testing::{SlowStore, ThrottledStore, VirtualTime};
use mailrail::transfer::Report;
use mailrail::{Engine, Protection, Repository, Resources, Settings};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

const GB: f64 = 1e9;

fn governor(time: &VirtualTime, settings: GovernorSettings) -> Governor {
    Governor::with(settings, Arc::new(time.clone()), Arc::new(time.clone()))
}

fn seams(time: &VirtualTime, governor: &Governor) -> Seams {
    let mut seams = Seams::default();
    (seams.clock, seams.timer) = (Arc::new(time.clone()), Arc::new(time.clone()));
    seams.governor = Some(governor.clone());
    seams
}

/// Mailboxes of so many messages, with an attachment of so many octets each.
fn mail(mailboxes: u64, messages: u64, octets: usize) -> Memory {
    let source = Memory::new(SourceId::new([1; 16]));
    for mailbox in 0..mailboxes {
        for message in 0..messages {
            let mut mail =
                b"Subject: x\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
                    .to_vec();
            mail.extend(noise(mailbox * messages + message + 1, octets));
            source.put(&MailboxName::new(format!("m{mailbox}")), "INBOX", message.to_string(), mail);
        }
    }
    source
}

async fn engine(store: Arc<dyn Store>, seams: Seams, memory: u64, settings: Settings) -> Engine {
    let repository = Repository::open_or_create_with(store, Protection::None, seams).await.unwrap();
    Engine::builder(repository).resources(Resources::inline(memory).unwrap()).settings(settings).build().unwrap()
}

/// The report of a push to an empty repository, and how many commits it made.
fn push(source: Memory, settings: Settings, governed: GovernorSettings) -> (Report, usize) {
    let time = VirtualTime::new();
    let governor = governor(&time, governed);
    time.run(async {
        let store = MemoryStore::new();
        let engine = engine(Arc::new(store.clone()), seams(&time, &governor), 512 << 20, settings).await;
        let report = engine.transfer(source).finish().await.unwrap();
        (report, store.list("mailboxes/").count().await)
    })
}

/// How many requests more each takes of: a GB stored, a commit, a mailbox (its commit counted apart).
fn cost(governed: &GovernorSettings) -> [f64; 3] {
    let push = |mail, settings| {
        let (report, commits) = push(mail, settings, governed.clone());
        println!("{} octets stored, {commits} commits: {:?}", report.ledger.bytes.written, report.requests);
        (report.requests.requests() as f64, report.ledger.bytes.written as f64, commits as f64)
    };
    let little = push(mail(1, 17, 4 << 20), Settings::default());
    let much = push(mail(1, 119, 4 << 20), Settings::default());
    let mut short = Settings::default();
    short.commit_messages_max = 1;
    let (few, many) = (push(mail(1, 3000, 10), short.clone()), push(mail(1, 30_000, 10), short));
    let (one, all) = (push(mail(20, 1, 100), Settings::default()), push(mail(500, 1, 100), Settings::default()));
    assert!(many.2 - few.2 > 20.0, "{} commits", many.2);
    let commit = (many.0 - few.0) / (many.2 - few.2);
    [(much.0 - little.0) / (much.1 - little.1) * GB, commit, (all.0 - one.0) / 480.0 - commit]
}

#[test]
fn with_packs_in_one_request_a_gb_takes_40_requests_a_commit_two_and_a_mailbox_one() {
    let [gb, commit, mailbox] = cost(&GovernorSettings::default());
    println!("{gb} a GB, {commit} a commit, {mailbox} a mailbox");
    assert!(gb > 10.0 && gb <= 40.0, "{gb} a GB");
    assert!(commit > 0.9 && commit <= 2.0, "{commit} a commit");
    assert!(mailbox <= 1.1, "{mailbox} a mailbox");
}

#[test]
fn with_packs_in_parts_of_16_mib_a_gb_takes_110_requests_and_a_commit_two() {
    let mut governed = GovernorSettings::default();
    governed.multipart = Some(Multipart { above_bytes: 16 << 20, part_bytes: 16 << 20, is_governed_below: false });
    let [gb, commit, _] = cost(&governed);
    println!("{gb} a GB, {commit} a commit");
    assert!(gb > 60.0 && gb <= 110.0 && commit <= 2.0, "{gb} a GB, {commit} a commit");
}

/// Pushes mail of many short commits to a store that grants 20 requests a second, and gives how many were granted and refused in each second.
fn throttled() -> (Report, Vec<(u64, u64)>) {
    let time = VirtualTime::new();
    let governor = governor(&time, GovernorSettings::default());
    let slow = SlowStore::new(Arc::new(MemoryStore::new()), Arc::new(time.clone()), Duration::from_millis(30));
    let (rate, wait) = (20.0, Some(Duration::from_secs(1)));
    let store = ThrottledStore::per_second(Arc::new(slow), rate, rate, wait, Arc::new(time.clone()));
    let mut seconds = Vec::new();
    let push = async {
        let seams = seams(&time, &governor);
        let engine = engine(Arc::new(store), seams, 64 << 20, Settings::default()).await;
        let mut transfer = engine.transfer(mail(1500, 1, 1000));
        while transfer.next().await.is_some() {}
        transfer.finish().await.unwrap()
    };
    let watch = async {
        let mut before = governor.usage();
        loop {
            time.sleep(Duration::from_secs(1)).await;
            let used = governor.usage().since(&before);
            seconds.push((used.requests() - used.refused, used.refused));
            before = governor.usage();
        }
    };
    let report = time.run(async {
        let mut push = std::pin::pin!(push);
        let mut watch = std::pin::pin!(watch);
        match futures::future::select(&mut push, &mut watch).await {
            futures::future::Either::Left((report, _)) => report,
            futures::future::Either::Right(((), _)) => unreachable!("it watches for ever"),
        }
    });
    (report, seconds)
}

#[test]
fn a_transfer_to_a_store_that_throttles_settles_at_what_it_grants_and_says_so() {
    let (report, seconds) = throttled();
    assert_eq!(report.ledger.messages.stored, 1500);
    // The last seconds are those of the end of a run, in which little is asked.
    let settled = &seconds[10..seconds.len() - 5];
    assert!(settled.len() > 60, "{seconds:?}");
    let granted = settled.iter().map(|(granted, _)| granted).sum::<u64>() as f64 / settled.len() as f64;
    let refused = settled.iter().map(|(_, refused)| refused).sum::<u64>() as f64 / settled.len() as f64;
    println!("{granted} granted a second, {refused} refused; {:?}", report.time);
    assert!((18.0..=22.0).contains(&granted), "{granted} a second: {seconds:?}");
    assert!(refused < 0.1 * (granted + refused), "{refused} refused a second: {seconds:?}");
    assert!(report.time.store_throttling > 0.8, "{:?}", report.time);
    if let Ok(path) = std::env::var("MAILRAIL_PACE_PLOT") {
        std::fs::write(path, plot(&seconds)).unwrap();
    }
}

fn sum(report: &Report) -> f64 {
    report.time.named().iter().map(|(_, share)| share).sum()
}

#[test]
fn shares_of_time_name_what_a_transfer_waited_for_and_add_up() {
    let run = |store: fn(&VirtualTime) -> Arc<dyn Store>, settings: GovernorSettings| {
        let time = VirtualTime::new();
        let governor = governor(&time, settings);
        let report = time.run(async {
            let engine = engine(store(&time), seams(&time, &governor), 64 << 20, Settings::default()).await;
            engine.transfer(mail(4, 40, 100_000)).finish().await.unwrap()
        });
        assert!((sum(&report) - 1.0).abs() < 1e-9, "{:?}", report.time);
        report.time
    };
    let memory = |_: &VirtualTime| -> Arc<dyn Store> { Arc::new(MemoryStore::new()) };
    let slow = |time: &VirtualTime| -> Arc<dyn Store> {
        Arc::new(SlowStore::new(Arc::new(MemoryStore::new()), Arc::new(time.clone()), Duration::from_millis(300)))
    };
    let mut ceiling = GovernorSettings::default();
    ceiling.bandwidth = Some(100_000);
    let time = run(slow, GovernorSettings::default());
    assert!(time.store_latency > 0.99, "{time:?}");
    let time = run(memory, ceiling);
    assert!(time.ceiling > 0.99, "{time:?}");
}

#[test]
fn who_waits_for_something_to_be_appended_waits_for_the_source() {
    let time = VirtualTime::new();
    let governor = governor(&time, GovernorSettings::default());
    let report = time.run(async {
        let engine = engine(Arc::new(MemoryStore::new()), seams(&time, &governor), 64 << 20, Settings::default()).await;
        let (appender, transfer) = engine.append_to(MailboxName::new("anna"), SourceId::new([1; 16]));
        let append = async {
            time.sleep(Duration::from_secs(60)).await;
            drop(appender);
        };
        join(transfer.finish(), append).await.0.unwrap()
    });
    assert!(report.time.source > 0.99 && (sum(&report) - 1.0).abs() < 1e-9, "{:?}", report.time);
}

#[test]
fn a_restore_from_far_away_waits_for_few_answers_in_a_row() {
    let latency = Duration::from_millis(50);
    let restore = |mailboxes: u64, messages: u64, octets: usize| {
        let store = MemoryStore::new();
        let time = VirtualTime::new();
        let governor = governor(&time, GovernorSettings::default());
        let far = SlowStore::new(Arc::new(store.clone()), Arc::new(time.clone()), latency);
        let report = time.run(async {
            let near = engine(Arc::new(store), Seams::default(), 512 << 20, Settings::default()).await;
            near.transfer(mail(mailboxes, messages, octets)).finish().await.unwrap();
            let engine = engine(Arc::new(far), seams(&time, &governor), 512 << 20, Settings::default()).await;
            engine.restore(sink::Memory::new(Kind::Other("memory".into()))).finish().await.unwrap()
        });
        assert!(report.is_complete() && report.restored == mailboxes * messages, "{report:?}");
        let answers = time.now().as_secs_f64() / latency.as_secs_f64();
        println!("{} octets of {mailboxes} mailboxes: {answers} answers in a row; {:?}", report.bytes, report.requests);
        answers
    };
    // 8 MiB in a window, and one after the other it would be 32 answers.
    let big = restore(1, 256, 1 << 20);
    assert!(big < 25.0, "{big} answers in a row");
    // At least five requests for each.
    let many = restore(640, 1, 1000);
    assert!(many < 640.0 * 5.0 / 8.0, "{many} answers in a row");
}

/// A drawing: what was granted and refused in each second.
fn plot(seconds: &[(u64, u64)]) -> String {
    let most = seconds.iter().map(|(granted, refused)| granted + refused).max().unwrap_or(1).max(1) as f64;
    let mut out = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 260\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"800\" height=\"260\" fill=\"white\"/>\n<path d=\"M60 20V230H760\" fill=\"none\" stroke=\"#999\"/>\n",
    );
    let (width, height) = (700.0 / seconds.len() as f64, |requests: u64| 210.0 * requests as f64 / most);
    for (second, (granted, refused)) in seconds.iter().enumerate() {
        let (x, granted, refused) = (60.0 + width * second as f64, height(*granted), height(*refused));
        for (base, tall, colour) in [(230.0, granted, "#1b6ca8"), (230.0 - granted, refused, "#c46210")] {
            let y = base - tall;
            writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{tall:.1}\" fill=\"{colour}\"/>"
            )
            .unwrap();
        }
    }
    let granted = 230.0 - height(20);
    writeln!(out, "<path d=\"M60 {granted:.1}H760\" stroke=\"#333\" stroke-dasharray=\"4\"/>").unwrap();
    writeln!(out, "<text x=\"30\" y=\"{:.1}\">20</text><text x=\"30\" y=\"30\">{most:.0}</text>", granted + 4.0)
        .unwrap();
    writeln!(out, "<text x=\"60\" y=\"14\">requests a second: <tspan fill=\"#1b6ca8\">granted</tspan>, <tspan fill=\"#c46210\">refused</tspan></text>")
        .unwrap();
    writeln!(out, "<text x=\"60\" y=\"250\">0 to {} seconds</text>\n</svg>", seconds.len()).unwrap();
    out
}
