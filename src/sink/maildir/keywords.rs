//! The keywords of a folder: `dovecot-keywords`, which says what the letters `a` to `z` in file names mean.

use crate::error::Result;
use crate::message::Companion;
use crate::sink::tree::Tree;
use crate::sink::{names, system};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The file's name.
pub(super) const FILE: &[u8] = b"dovecot-keywords";

const KEYWORDS_MAX: usize = 26;

/// What the letters in a folder mean.
#[derive(Debug)]
pub(super) struct Keywords {
    directory: PathBuf,
    words: Vec<Option<String>>,
    /// Whether letters that messages come with mean something else here.
    is_foreign: bool,
}

impl Keywords {
    /// The keywords of the folder in `directory`, as its file has them now.
    pub(super) fn load(directory: &Path) -> Result<Self> {
        let words = read(&directory.join(names::native(FILE)))?;
        Ok(Self { directory: directory.to_owned(), words: parse(&words), is_foreign: false })
    }

    /// Takes in another file's keywords: its letters mean the same from now on, or are known to mean something else.
    pub(super) fn adopt(&mut self, file: &[u8], tree: &Tree, is_durable: bool) -> Result<()> {
        let words = parse(file);
        let mut merged = self.words.clone();
        merged.resize(merged.len().max(words.len()), None);
        for (mine, theirs) in merged.iter_mut().zip(&words) {
            match (&*mine, theirs) {
                (Some(mine), Some(theirs)) if mine != theirs => {
                    self.is_foreign = true;
                    return Ok(());
                }
                (None, Some(theirs)) => *mine = Some(theirs.clone()),
                _ => {}
            }
        }
        if merged != self.words { self.store(merged, tree, is_durable) } else { Ok(()) }
    }

    /// Whether letters that messages come with mean something else here.
    pub(super) fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// The letters for these keywords, in ASCII order, and the keywords for which there is none. New ones are written to the file first.
    pub(super) fn letters<'a>(
        &mut self,
        keywords: &'a [String],
        tree: &Tree,
        is_durable: bool,
    ) -> Result<(Vec<u8>, Vec<&'a str>)> {
        let mut words = self.words.clone();
        let (mut letters, mut without) = (Vec::new(), Vec::new());
        for keyword in keywords {
            match slot(&mut words, keyword) {
                Some(slot) => letters.push(b'a' + slot),
                None => without.push(keyword.as_str()),
            }
        }
        if words != self.words {
            self.store(words, tree, is_durable)?;
        }
        letters.sort_unstable();
        Ok((letters, without))
    }

    fn store(&mut self, words: Vec<Option<String>>, tree: &Tree, is_durable: bool) -> Result<()> {
        let named = words.iter().enumerate().filter_map(|(at, word)| word.as_ref().map(|word| (at, word)));
        let file: String = named.map(|(at, word)| format!("{at} {word}\n")).collect();
        let mut temporary = tree.temporary(&self.directory.join("tmp"), file.len() as u64)?;
        temporary.write(file.as_bytes())?;
        temporary.replace(&self.directory.join(names::native(FILE)), is_durable)?;
        self.words = words;
        Ok(())
    }
}

/// The number of a keyword's letter, perhaps a new one. `None` if the file cannot hold the keyword.
fn slot(words: &mut Vec<Option<String>>, keyword: &str) -> Option<u8> {
    let known = words.iter().take(KEYWORDS_MAX).position(|word| word.as_deref() == Some(keyword));
    let at = match known {
        Some(at) => at,
        None if keyword.is_empty()
            || keyword.contains(|letter: char| letter.is_whitespace() || letter.is_control()) =>
        {
            return None;
        }
        None => {
            // A gap may be a keyword that was deleted and still has its letter in old names: it is not used again.
            let free = words.len();
            if free >= KEYWORDS_MAX {
                return None;
            }
            words.push(Some(keyword.to_owned()));
            free
        }
    };
    u8::try_from(at).ok()
}

fn parse(file: &[u8]) -> Vec<Option<String>> {
    let mut words = Vec::new();
    for line in file.split(|octet| *octet == b'\n') {
        let Some((number, word)) = std::str::from_utf8(line).ok().and_then(|line| line.trim_end().split_once(' '))
        else {
            continue;
        };
        let Some(number) = number.parse::<usize>().ok().filter(|number| *number < KEYWORDS_MAX) else { continue };
        words.resize(words.len().max(number + 1), None);
        if let Some(slot) = words.get_mut(number) {
            *slot = Some(word.to_owned());
        }
    }
    words
}

/// The file's octets; none if it is no file, or too long to be one of these.
fn read(path: &Path) -> Result<Vec<u8>> {
    let mut octets = Vec::new();
    match system::look(path)? {
        Some(found) if found.is_file() && found.len() <= Companion::OCTETS_MAX as u64 => {
            let failed = |error| system::doing("reading", path, error);
            let file = File::open(path).map_err(failed)?;
            file.take(Companion::OCTETS_MAX as u64).read_to_end(&mut octets).map_err(failed)?;
        }
        _ => {}
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder() -> (tempfile::TempDir, Tree, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        fs::create_dir(path.join("tmp")).unwrap();
        (directory, Tree::new(path.clone()), path)
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn pitfall_28_keywords_get_letters_that_the_file_tells_and_a_second_run_finds() {
        let (_directory, tree, path) = folder();
        for _ in 0..2 {
            let mut keywords = Keywords::load(&path).unwrap();
            let list = words(&["$Label1", "Junk", "two words"]);
            let (letters, without) = keywords.letters(&list, &tree, true).unwrap();
            assert_eq!((&letters[..], &without[..]), (&b"ab"[..], &["two words"][..]));
            assert_eq!(fs::read(path.join("dovecot-keywords")).unwrap(), b"0 $Label1\n1 Junk\n");
        }
        assert_eq!(fs::read_dir(path.join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn pitfall_28_the_twenty_seventh_keyword_has_no_letter() {
        let (_directory, tree, path) = folder();
        let list: Vec<String> = (10..37).map(|number| format!("k{number}")).collect();
        let (letters, without) = Keywords::load(&path).unwrap().letters(&list, &tree, false).unwrap();
        assert_eq!((letters.last(), &without[..]), (Some(&b'z'), &["k36"][..]));
    }

    #[test]
    fn another_files_keywords_are_taken_in_unless_a_letter_means_something_else() {
        let (_directory, tree, path) = folder();
        fs::write(path.join("dovecot-keywords"), "0 a\n").unwrap();
        let mut keywords = Keywords::load(&path).unwrap();
        keywords.adopt(b"2 c\n", &tree, false).unwrap();
        assert_eq!(fs::read(path.join("dovecot-keywords")).unwrap(), b"0 a\n2 c\n");
        assert!(!keywords.is_foreign());
        keywords.adopt(b"0 b\n", &tree, false).unwrap();
        assert!(keywords.is_foreign());
        assert_eq!(keywords.letters(&words(&["b"]), &tree, false).unwrap().0, b"d");
    }
}
