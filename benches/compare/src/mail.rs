//! The mail that is pushed: made, or found and perhaps repeated.

use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use walkdir::WalkDir;

/// A directory of mail, in one of the kinds that mailrail reads.
pub struct Tree {
    pub name: String,
    pub kind: String,
    pub path: PathBuf,
    pub files: u64,
    pub octets: u64,
}

/// `KIND:DIRECTORY`, as mailrail takes it.
#[derive(Clone, Debug)]
pub struct Place {
    kind: String,
    path: PathBuf,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, path) = text.split_once(':').ok_or("KIND:DIRECTORY, such as maildir:/var/mail")?;
        Ok(Self { kind: kind.to_owned(), path: PathBuf::from(path) })
    }
}

impl Tree {
    fn new(name: String, kind: &str, path: PathBuf) -> Result<Self> {
        let (mut files, mut octets) = (0, 0);
        for entry in WalkDir::new(&path) {
            let entry = entry?;
            if entry.file_type().is_file() {
                files += 1;
                octets += entry.metadata()?.len();
            }
        }
        if files == 0 {
            bail!("{} has no files", path.display());
        }
        Ok(Self { name, kind: kind.to_owned(), path, files, octets })
    }

    /// The synthetic organisation, as Maildirs.
    pub fn generated(megabytes: u64, generator: &Path, work: &Path) -> Result<Self> {
        let path = work.join("organisation");
        let made = Command::new(generator).arg(&path).arg(megabytes.to_string()).output()?;
        if !made.status.success() {
            bail!("the organisation was not made: {}", String::from_utf8_lossy(&made.stderr));
        }
        Self::new("a synthetic organisation".to_owned(), "maildir", path)
    }

    /// A copy of what is there, `times` times; each message of all but the first copy has a field more at its top, another one in each copy.
    pub fn copied(place: &Place, times: u32, work: &Path) -> Result<Self> {
        if times > 1 && place.kind == "mbox" {
            bail!("an mbox has no place for another header field; split it into files first");
        }
        let source = place.path.canonicalize().with_context(|| place.path.display().to_string())?;
        let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = work.join(&name);
        for copy in 0..times {
            let target = if times == 1 { path.clone() } else { path.join(format!("copy-{copy}")) };
            for entry in WalkDir::new(&source).sort_by_file_name() {
                let entry = entry?;
                let to = target.join(entry.path().strip_prefix(&source)?);
                if entry.file_type().is_dir() {
                    fs::create_dir_all(&to)?;
                } else if entry.file_type().is_file() {
                    copy_message(entry.path(), &to, copy)?;
                }
            }
        }
        let name = if times == 1 { name } else { format!("{name}, {times} times under changed headers") };
        Self::new(name, &place.kind, path)
    }
}

fn copy_message(from: &Path, to: &Path, copy: u32) -> Result<()> {
    if copy == 0 {
        fs::copy(from, to)?;
        return Ok(());
    }
    let octets = fs::read(from)?;
    let mut file = fs::File::create(to)?;
    let ending = if memchr::memmem::find(&octets, b"\r\n").is_some() { "\r\n" } else { "\n" };
    write!(file, "X-Copy: {copy} of {}{ending}", from.display())?;
    file.write_all(&octets)?;
    Ok(())
}
