//! A high-throughput mail data transfer engine.
#![cfg_attr(docsrs, feature(doc_cfg))]

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
pub mod message;
pub mod mime;
#[cfg(any(test, feature = "organisation"))]
#[cfg_attr(docsrs, doc(cfg(feature = "organisation")))]
pub mod organisation;
mod pack;
pub mod reading;
pub mod recipe;
pub mod repository;
pub mod resources;
pub mod restore;
pub mod runtime;
mod seal;
pub mod settings;
pub mod sink;
pub mod source;
pub mod store;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
pub mod transfer;
mod wire;

pub use engine::{Builder, Engine};
pub use error::{Error, ErrorKind, Result, Retry};
pub use repository::Repository;
pub use resources::Resources;
pub use seal::{Key, Protection};
pub use settings::Settings;
