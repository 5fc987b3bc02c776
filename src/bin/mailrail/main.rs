//! The command `mailrail`.
fn main() {}
