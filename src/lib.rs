//! A high-throughput mail data transfer engine.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod digest;
pub mod error;
pub mod message;
pub mod mime;
#[cfg(any(test, feature = "organisation"))]
#[cfg_attr(docsrs, doc(cfg(feature = "organisation")))]
pub mod organisation;
pub mod recipe;
pub mod runtime;
pub mod sink;
pub mod source;
pub mod store;
mod wire;

pub use error::{Error, ErrorKind, Result, Retry};
