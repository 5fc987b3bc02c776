//! A high-throughput mail data transfer engine.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod budget;
pub mod digest;
pub mod error;
mod index;
pub mod ledger;
pub mod message;
pub mod mime;
mod pack;
#[cfg(any(test, feature = "organisation"))]
#[cfg_attr(docsrs, doc(cfg(feature = "organisation")))]
pub mod organisation;
pub mod recipe;
pub mod repository;
pub mod resources;
pub mod runtime;
mod seal;
pub mod sink;
pub mod source;
pub mod store;
pub mod settings;
pub mod transfer;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod wire;

pub use error::{Error, ErrorKind, Result, Retry};
