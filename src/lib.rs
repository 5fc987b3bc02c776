//! A high-throughput mail data transfer engine: byte-exact, deduplicating, bounded in memory.
//!
//! An [`Engine`] moves mail from a [`source`] into a [`Repository`] in a [`store`], and out of it into a [`sink`]. Every message is stored exactly, equal content once;
//! every restored message is verified.
//!
//! ```
//! use mailrail::message::MailboxName;
//! use mailrail::source::{Memory, SourceId};
//! use mailrail::store::MemoryStore;
//! use mailrail::{Engine, Protection, Repository};
//! use std::sync::Arc;
//!
//! # futures::executor::block_on(async {
//! let repository = Repository::open_or_create(Arc::new(MemoryStore::new()), Protection::None).await?;
//! let engine = Engine::builder(repository).build()?;
//!
//! let anna = MailboxName::new("anna");
//! let source = Memory::new(SourceId::new([1; 16]));
//! source.put(&anna, "INBOX", "first", "Subject: hello\r\n\r\nHello, world.\r\n");
//!
//! let report = engine.transfer(source).finish().await?;
//! assert_eq!(report.ledger.messages.stored, 1);
//! assert_eq!(engine.messages(&anna, None).await?.messages.len(), 1);
//! # Ok::<(), mailrail::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Runtime
//!
//! Futures of this crate run on any executor. CPU work runs on the worker threads of [`Resources`]; [`store::FileStore`] uses tokio's blocking threads where there is a tokio runtime
//! (`current_thread` is enough) and the polling thread where there is none. A future that is dropped stops at once: what was committed stays, and nothing half done is visible. When a tokio
//! runtime shuts down below a transfer, it fails; the next run goes on.
//!
//! # Cancel safety
//!
//! A method is *cancel safe* if dropping its future before it resolves loses nothing: calling it again goes on where it was. Every async method says what it is.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub mod bench;
pub mod budget;
pub mod check;
pub mod compare;
pub mod digest;
mod engine;
pub mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod index;
pub mod ledger;
mod lock;
pub mod message;
pub mod mime;
#[cfg(any(test, feature = "organisation"))]
#[cfg_attr(docsrs, doc(cfg(feature = "organisation")))]
pub mod organisation;
mod pack;
pub mod reading;
pub mod recipe;
pub mod repair;
pub mod repository;
pub mod resources;
pub mod restore;
pub mod runtime;
mod seal;
pub mod settings;
pub mod sink;
pub mod source;
pub mod store;
pub mod sweep;
#[cfg(any(test, feature = "conformance"))]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
pub mod testing;
pub mod transfer;
mod wire;

pub use engine::{Builder, Engine};
pub use error::{Error, ErrorKind, Result, Retry};
pub use repository::Repository;
pub use resources::Resources;
pub use seal::{Key, Protection};
#[cfg(feature = "passphrase")]
#[cfg_attr(docsrs, doc(cfg(feature = "passphrase")))]
pub use seal::{Passphrase, PassphraseCost};
pub use settings::{Compression, Settings};

/// The examples in README.md compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
