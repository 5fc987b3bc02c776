//! Writes an organisation to disk, for other tools to read.

use super::{Message, Organisation};
use crate::error::{Error, Result};
use crate::message::FolderPath;
use std::collections::BTreeSet;
use std::fs::{File, FileTimes, create_dir_all};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

impl Organisation {
    /// Writes each mailbox as a Maildir++ in a directory of its name below `directory`; files have the internal date as
    /// modification time. Gives the octets written. Nothing is synced.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn write_maildirs(&self, directory: &Path) -> Result<u64> {
        for mailbox in self.mailboxes() {
            for folder in mailbox.folders() {
                let folder = directory.join(mailbox.name().to_string()).join(raw(&folder));
                for part in ["cur", "new", "tmp"] {
                    create(&folder.join(part))?;
                }
            }
        }
        let mut octets = 0;
        for message in self.messages() {
            let folder = directory.join(message.mailbox().to_string()).join(raw(&message.folder()));
            let place = message.place();
            let path = match place.strip_prefix("cur") {
                Some(info) => folder.join("cur").join(message.name() + info),
                None => folder.join("new").join(message.name()),
            };
            octets += write(&message, &path)?;
        }
        Ok(octets)
    }

    /// Writes each message as a file `<mailbox>/<folder>/.../<name>.eml` below `directory`, with the internal date as modification time. Gives the octets written. Nothing is synced.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn write_eml(&self, directory: &Path) -> Result<u64> {
        let mut created = BTreeSet::new();
        let mut octets = 0;
        for message in self.messages() {
            let folder: PathBuf = message.folder().names.iter().collect();
            let folder = directory.join(message.mailbox().to_string()).join(folder);
            if !created.contains(&folder) {
                create(&folder)?;
                created.insert(folder.clone());
            }
            octets += write(&message, &folder.join(message.name() + ".eml"))?;
        }
        Ok(octets)
    }
}

/// The directory of a folder, relative to its mailbox.
fn raw(folder: &FolderPath) -> String {
    String::from_utf8_lossy(&folder.raw).into_owned()
}

fn create(directory: &Path) -> Result<()> {
    create_dir_all(directory).map_err(|source| Error::io(format!("creating '{}'", directory.display()), source))
}

fn write(message: &Message, path: &Path) -> Result<u64> {
    try_write(message, path).map_err(|source| Error::io(format!("writing '{}'", path.display()), source))?;
    Ok(message.length())
}

fn try_write(message: &Message, path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut done = Ok(());
    message.for_each_block(|block| {
        if done.is_ok() {
            done = file.write_all(block);
        }
    });
    done?;
    let seconds = u64::try_from(message.internal_date().seconds).unwrap_or(0);
    file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(seconds)))
}
