//! Writes a synthetic organisation as Maildirs, for comparing mailrail with other tools.
//!
//! `cargo run --release --features organisation --example organisation -- DIRECTORY MEGABYTES [MAILBOXES [SEED]]`

use mailrail::organisation::Organisation;
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, megabytes, rest @ ..] = arguments.as_slice() else {
        return Err("usage: organisation DIRECTORY MEGABYTES [MAILBOXES [SEED]]".into());
    };
    let number = |at: usize, default: u64| rest.get(at).map_or(Ok(default), |text| text.parse());
    let bytes = megabytes.parse::<u64>()?.saturating_mul(1_000_000);
    let organisation = Organisation::new(number(1, 1)?).mailboxes(number(0, 20)?).bytes(bytes).build();
    let written = organisation.write_maildirs(Path::new(directory))?;
    println!("{} messages, {written} octets", organisation.message_count());
    Ok(())
}
