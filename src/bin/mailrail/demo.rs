//! `mailrail demo`.
use crate::Status;
use crate::arguments::{Common, Demo};
use crate::failure::Failure;
pub(crate) async fn run(_: &Common, _: Demo) -> Result<Status, Failure> {
    Err(Failure::new("not yet"))
}
