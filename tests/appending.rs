//! The push side: many mailboxes, one small budget.

use bytes::Bytes;
use futures::channel::oneshot;
use futures::executor::block_on;
use futures::future::{join, join_all};
use mailrail::message::{Envelope, Identity, MailboxName};
use mailrail::source::SourceId;
use mailrail::store::MemoryStore;
use mailrail::transfer::{Appender, Settled};
use mailrail::{Engine, ErrorKind, Protection, Repository, Resources};
use std::sync::Arc;

const SOURCE: SourceId = SourceId::new([1; 16]);

async fn engine(resources: Resources) -> Engine {
    let repository = Repository::open_or_create(Arc::new(MemoryStore::new()), Protection::None).await.unwrap();
    Engine::builder(repository).resources(resources).build().unwrap()
}

async fn append(appender: &Appender, name: &str, octets: Vec<u8>) -> Settled {
    let envelope = Envelope::new("", Identity::Named(Bytes::from(name.to_owned())));
    appender.append(envelope, octets).await.unwrap()
}

#[test]
fn hundreds_of_open_mailboxes_share_the_smallest_budget_for_only_those_at_work_hold_memory() {
    let resources = Resources::inline(Resources::MEMORY_BYTES_MIN).unwrap();
    let shared = resources.clone();
    block_on(async {
        let engine = engine(resources).await;
        let mailboxes = (0..200).map(|number| {
            let engine = engine.clone();
            async move {
                let name = MailboxName::new(format!("box {number}"));
                let (appender, transfer) = engine.append_to(name.clone(), SOURCE);
                let appends = async {
                    for message in ["one", "two", "three"] {
                        let settled = append(&appender, message, vec![b'x'; 40_000]).await;
                        assert!(matches!(settled, Settled::Stored { length: 40_000, .. }));
                    }
                    drop(appender);
                };
                let ((), report) = join(appends, transfer.finish()).await;
                assert_eq!(report.unwrap().ledger.messages.stored, 3);
                assert_eq!(engine.messages(&name, None).await.unwrap().messages.len(), 3);
            }
        });
        join_all(mailboxes).await;
    });
    assert_eq!(shared.budget().waiting(), 0);
    assert!(shared.budget().used() <= Resources::MEMORY_BYTES_MIN / 16, "only the index is left");
}

#[test]
fn messages_appended_at_once_share_commits() {
    block_on(async {
        let engine = engine(Resources::inline(64 << 20).unwrap()).await;
        let (appender, transfer) = engine.append_to(MailboxName::new("anna"), SOURCE);
        let appends = async {
            let names: Vec<String> = (0..50).map(|number| number.to_string()).collect();
            join_all(names.iter().map(|name| append(&appender, name, b"Subject: x\n\nx\n".to_vec()))).await;
            drop(appender);
        };
        let ((), report) = join(appends, transfer.finish()).await;
        assert_eq!(report.unwrap().ledger.messages.stored, 50);
        assert!(engine.statistics().await.unwrap().commits < 10);
    });
}

#[test]
fn a_mailbox_that_waits_for_messages_can_be_shut_down_and_aborted() {
    block_on(async {
        let engine = engine(Resources::inline(64 << 20).unwrap()).await;
        let (appender, transfer) = engine.append_to(MailboxName::new("anna"), SOURCE);
        let (signal, stopped) = oneshot::channel::<()>();
        let transfer = transfer.shutdown_on(async { stopped.await.unwrap_or_default() });
        let appends = async {
            append(&appender, "one", b"Subject: x\n\nx\n".to_vec()).await;
            signal.send(()).unwrap();
        };
        let ((), report) = join(appends, transfer.finish()).await;
        assert_eq!(report.unwrap().ledger.messages.stored, 1);
        let late = appender.append(Envelope::new("", Identity::Content), b"late".to_vec()).await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Cancelled);
        let (appender, transfer) = engine.append_to(MailboxName::new("anna"), SOURCE);
        transfer.abort().await.unwrap();
        assert_eq!(appender.has("", "one").await.unwrap_err().kind(), ErrorKind::Cancelled);
    });
}

#[test]
fn appended_messages_are_restored_though_no_source_has_named_their_folder() {
    block_on(async {
        let engine = engine(Resources::inline(64 << 20).unwrap()).await;
        let anna = MailboxName::new("anna");
        let (appender, transfer) = engine.append_to(anna.clone(), SOURCE);
        let appends = async {
            for folder in ["", "Archive/2026"] {
                let envelope = Envelope::new(folder, Identity::Named("one".into()));
                appender.append(envelope, b"Subject: x\n\nx\n".to_vec()).await.unwrap();
            }
            drop(appender);
        };
        join(appends, transfer.finish()).await.1.unwrap();
        let folders = engine.messages(&anna, None).await.unwrap().folders;
        let names: Vec<_> = folders.into_iter().map(|folder| folder.path.names).collect();
        assert_eq!(names, [vec![], vec!["Archive".to_owned(), "2026".to_owned()]]);
        let directory = tempfile::tempdir().unwrap();
        let maildir = mailrail::sink::Maildir::new(directory.path().join("maildir"));
        let eml = mailrail::sink::Eml::new(directory.path().join("eml"));
        for report in [engine.restore(maildir).finish().await.unwrap(), engine.restore(eml).finish().await.unwrap()] {
            assert_eq!((report.restored, report.failed), (2, 0), "{report:#?}");
        }
    });
}

/// What is boxed in the library says so in its type; this is the rest.
#[test]
fn what_is_async_can_be_spawned_on_a_runtime_of_threads() {
    fn spawnable<T>(_: impl Future<Output = T> + Send) {}
    block_on(async {
        let engine = engine(Resources::inline(Resources::MEMORY_BYTES_MIN).unwrap()).await;
        let (appender, mut transfer) = engine.append_to(MailboxName::new("box"), SOURCE);
        spawnable(appender.append(Envelope::new("", Identity::Named(Bytes::new())), Vec::new()));
        spawnable(appender.has("", ""));
        spawnable(transfer.next());
        spawnable(transfer.finish());
        spawnable(engine.append_to(MailboxName::new("box"), SOURCE).1.abort());
        let keys = engine.repository().keys();
        spawnable(keys.list());
        spawnable(keys.add(Protection::None, ""));
        spawnable(keys.remove("0000000000000000".parse().unwrap()));
        spawnable(keys.remove_even_in_use("0000000000000000".parse().unwrap()));
        spawnable(keys.rotate(Protection::None, ""));
    });
}
