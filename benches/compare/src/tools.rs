//! What is run of each tool. All of them that encrypt do so, with the cheapest key they take; all caches are cold at the first push.

use crate::mail::Tree;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tool, and how it does each of the things that are measured.
pub struct Tool {
    pub name: &'static str,
    /// The program, and what makes it tell its version.
    program: PathBuf,
    version: &'static str,
    /// What is done before anything is measured, if anything is.
    init: Option<Make>,
    push: Make,
    /// Whether a second push finds out by itself what is there already.
    pub pushes_again: bool,
    restore: Option<Make>,
    /// Where below the directory for what is restored the tree is then.
    pub restores_whole_paths: bool,
    /// Whether Maildirs are all that it takes.
    pub wants_maildirs: bool,
}

type Make = fn(&Path, &Tree, &Places) -> Command;

/// Where things are in a round.
pub struct Places {
    pub repository: PathBuf,
    pub restored: PathBuf,
    pub cache: PathBuf,
    /// 32 random octets.
    pub key: PathBuf,
}

impl Tool {
    /// All there are, in the order in which they are told.
    pub fn all(mailrail: &Path, roofline: &Path) -> Vec<Self> {
        let tool = |name, program: &Path, push| Self {
            name,
            program: program.to_owned(),
            version: "--version",
            init: None,
            push,
            pushes_again: true,
            restore: None,
            restores_whole_paths: false,
            wants_maildirs: false,
        };
        vec![
            Self { restore: Some(mailrail_restore), ..tool("mailrail", mailrail, mailrail_push) },
            Self { pushes_again: false, version: "", ..tool("roofline", roofline, roofline_push) },
            Self {
                version: "version",
                init: Some(restic_init),
                restore: Some(restic_restore),
                restores_whole_paths: true,
                ..tool("restic", Path::new("restic"), restic_push)
            },
            Self {
                init: Some(rustic_init),
                restore: Some(rustic_restore),
                ..tool("rustic", Path::new("rustic"), rustic_push)
            },
            Self { init: Some(borg_init), restore: Some(borg_restore), ..tool("borg", Path::new("borg"), borg_push) },
            Self { restore: Some(tar_restore), pushes_again: false, ..tool("tar | zstd", Path::new("zstd"), tar_push) },
            Self {
                init: Some(dovecot_init),
                pushes_again: false,
                wants_maildirs: true,
                ..tool("dovecot", Path::new("dovecot"), dovecot_push)
            },
        ]
    }

    /// The first line of what it says of itself; `None` if it is not installed.
    pub fn version(&self) -> Option<String> {
        if self.version.is_empty() {
            return Some(String::new());
        }
        let output = Command::new(&self.program).arg(self.version).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then(|| text.lines().next().unwrap_or_default().trim_matches('*').trim().to_owned())
    }

    pub fn init(&self, tree: &Tree, places: &Places) -> Option<Command> {
        self.init.map(|make| make(&self.program, tree, places))
    }

    pub fn push(&self, tree: &Tree, places: &Places) -> Command {
        (self.push)(&self.program, tree, places)
    }

    pub fn restore(&self, tree: &Tree, places: &Places) -> Option<Command> {
        self.restore.map(|make| make(&self.program, tree, places))
    }
}

fn command(program: &Path, arguments: &[&dyn AsRef<OsStr>]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// `maildir:DIRECTORY` and the like.
fn place(tree: &Tree, path: &Path) -> String {
    format!("{}:{}", tree.kind, path.display())
}

fn mailrail_push(program: &Path, tree: &Tree, places: &Places) -> Command {
    command(program, &[&"push", &place(tree, &tree.path), &places.repository, &"--key-file", &places.key])
}

fn mailrail_restore(program: &Path, tree: &Tree, places: &Places) -> Command {
    command(program, &[&"restore", &places.repository, &place(tree, &places.restored), &"--key-file", &places.key])
}

fn roofline_push(program: &Path, tree: &Tree, places: &Places) -> Command {
    command(program, &[&tree.path, &places.repository])
}

fn restic(program: &Path, places: &Places, arguments: &[&dyn AsRef<OsStr>]) -> Command {
    let mut command = command(program, &[&"--quiet", &"--repo", &places.repository]);
    command.args(arguments).env("RESTIC_PASSWORD", "measured").env("RESTIC_CACHE_DIR", &places.cache);
    command
}

fn restic_init(program: &Path, _: &Tree, places: &Places) -> Command {
    restic(program, places, &[&"init", &"--repository-version", &"2"])
}

fn restic_push(program: &Path, tree: &Tree, places: &Places) -> Command {
    restic(program, places, &[&"backup", &tree.path])
}

fn restic_restore(program: &Path, _: &Tree, places: &Places) -> Command {
    restic(program, places, &[&"restore", &"latest", &"--target", &places.restored])
}

fn rustic(program: &Path, places: &Places, arguments: &[&dyn AsRef<OsStr>]) -> Command {
    let mut command =
        command(program, &[&"--no-progress", &"--repository", &places.repository, &"--cache-dir", &places.cache]);
    command.args(arguments).env("RUSTIC_PASSWORD", "measured");
    command
}

fn rustic_init(program: &Path, _: &Tree, places: &Places) -> Command {
    rustic(program, places, &[&"init"])
}

fn rustic_push(program: &Path, tree: &Tree, places: &Places) -> Command {
    rustic(program, places, &[&"backup", &tree.path])
}

fn rustic_restore(program: &Path, tree: &Tree, places: &Places) -> Command {
    let snapshot = format!("latest:{}", tree.path.display());
    rustic(program, places, &[&"restore", &snapshot, &places.restored])
}

fn borg(program: &Path, places: &Places, arguments: &[&dyn AsRef<OsStr>]) -> Command {
    let mut command = command(program, arguments);
    command.env("BORG_PASSPHRASE", "measured").env("BORG_BASE_DIR", &places.cache);
    command.env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes");
    command
}

fn borg_init(program: &Path, _: &Tree, places: &Places) -> Command {
    borg(program, places, &[&"init", &"--encryption", &"repokey-blake2", &places.repository])
}

/// An archive's name can be had once, so that a second push has another.
fn borg_push(program: &Path, tree: &Tree, places: &Places) -> Command {
    let archive = format!("{}::{{now:%H%M%S%f}}", places.repository.display());
    let mut command = borg(program, places, &[&"create", &"--compression", &"zstd,3", &archive, &"."]);
    command.current_dir(&tree.path);
    command
}

fn borg_restore(program: &Path, _: &Tree, places: &Places) -> Command {
    let script = r#"exec "$0" extract "$1::$("$0" list --short --last 1 "$1")""#;
    let mut command = borg(Path::new("sh"), places, &[&"-c", &script, &program, &places.repository]);
    command.current_dir(&places.restored);
    command
}

fn tar_push(_: &Path, tree: &Tree, places: &Places) -> Command {
    let script = r#"set -e; mkdir "$1"; tar -C "$0" -c . | zstd -q -3 -T2 --long=27 -o "$1/mail.tar.zst""#;
    command(Path::new("sh"), &[&"-c", &script, &tree.path, &places.repository])
}

fn tar_restore(_: &Path, _: &Tree, places: &Places) -> Command {
    let script = r#"zstd -q -d --long=27 -c "$0/mail.tar.zst" | tar -C "$1" -x"#;
    command(Path::new("sh"), &[&"-c", &script, &places.repository, &places.restored])
}

/// Dovecot writes to what it imports from, and not as root: it gets a copy that belongs to somebody else.
fn dovecot_init(_: &Path, tree: &Tree, places: &Places) -> Command {
    let script = r#"set -e
        mkdir -p "$1" && cp -r "$0" "$2/source"
        user=$(id -un); if [ "$user" = root ]; then user=nobody; chown -R nobody "$1" "$2"; chmod a+x "$(dirname "$1")"; fi
        cat >"$2/dovecot.conf" <<CONF
protocols =
ssl = no
log_path = $2/log
base_dir = $2/run
default_internal_user = $user
default_login_user = $user
mail_uid = $(id -u $user)
mail_gid = $(id -g $user)
first_valid_uid = 1
mail_attachment_dir = $1/attachments
mail_attachment_fs = sis posix
mail_attachment_min_size = 16k
mail_attachment_hash = %{sha256}
CONF"#;
    command(Path::new("sh"), &[&"-c", &script, &tree.path, &places.repository, &places.cache])
}

/// Single-instance attachments, without compression; a mailbox for each processor at a time.
fn dovecot_push(_: &Path, _: &Tree, places: &Places) -> Command {
    let script = r#"export HOME="$1" USER=measured; ls "$1/source" | xargs -P "$(nproc)" -I{} \
        doveadm -c "$1/dovecot.conf" -o mail_location=mdbox:"$0/{}" import maildir:"$1/source/{}" "" ALL"#;
    command(Path::new("sh"), &[&"-c", &script, &places.repository, &places.cache])
}
