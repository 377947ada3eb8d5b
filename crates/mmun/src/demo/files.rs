//! The files that the demo reads: those that the user names, or some that every machine has.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use std::os::unix::fs::FileExt;

/// Files that are often there, beside the program itself and the libraries that it runs with.
const OFTEN_THERE: [&str; 5] = ["/bin/sh", "/usr/bin/env", "/etc/services", "/etc/passwd", "/etc/hosts"];

/// At most so many are picked by default.
const ENOUGH: usize = 8;

/// An open file that holds something.
///
/// # Invariants
/// It was a regular file of `length > 0` bytes when it was opened.
pub(super) struct Source {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Source {
    /// Opens a file.
    ///
    /// # Errors
    /// If it cannot be opened, is no regular file, or holds nothing.
    pub(super) fn open(path: &Path) -> Result<Source, SourceError> {
        let refuse = |cause| SourceError { path: path.to_owned(), cause };
        // Looked at before it is opened: opening a named pipe would wait for a writer.
        let kind = std::fs::metadata(path).map_err(|error| refuse(Cause::Io(error)))?;
        if !kind.is_file() {
            return Err(refuse(Cause::NotRegular));
        }
        let file = File::open(path).map_err(|error| refuse(Cause::Io(error)))?;
        let length = file.metadata().map_err(|error| refuse(Cause::Io(error)))?.len();
        // INVARIANT: regular and not empty, or it is refused.
        if length == 0 {
            return Err(refuse(Cause::Empty));
        }
        Ok(Source { path: path.to_owned(), file, length })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Reads from `offset` on until `bytes` is full or the file ends, the ordinary way (pread), and says
    /// how many bytes came.
    pub(super) fn pread(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// Opens the files that the user named.
///
/// # Errors
/// The first that cannot be used.
pub(super) fn given(paths: &[PathBuf]) -> Result<Vec<Source>, SourceError> {
    paths.iter().map(|path| Source::open(path)).collect()
}

/// Opens files that every machine has: this program, the libraries that it runs with, and a few more.
/// One that is missing is left out.
pub(super) fn usual() -> Vec<Source> {
    let program = std::env::current_exe().ok();
    let often = OFTEN_THERE.iter().map(PathBuf::from);
    let mut seen = Vec::new();
    program
        .into_iter()
        .chain(mapped_files())
        .chain(often)
        .filter_map(|path| path.canonicalize().ok())
        .filter(|path| {
            !seen.contains(path) && {
                seen.push(path.clone());
                true
            }
        })
        .filter_map(|path| Source::open(&path).ok())
        .take(ENOUGH)
        .collect()
}

/// The files that are mapped into this process: the dynamic linker, libc and so on.
fn mapped_files() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    // Address, permissions, offset, device, inode, path; the path may hold spaces.
    maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..]))).collect()
}

/// A file that cannot be used, and why.
#[derive(Debug)]
pub(super) struct SourceError {
    path: PathBuf,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Io(io::Error),
    NotRegular,
    Empty,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.cause {
            Cause::Io(error) => write!(f, "cannot read {path}: {error}"),
            Cause::NotRegular => write!(f, "cannot read {path}: not a regular file, as it must be"),
            Cause::Empty => write!(f, "cannot read {path}: it is empty, and must hold at least one byte"),
        }
    }
}

impl std::error::Error for SourceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_some_files() {
        let sources = usual();
        assert!(!sources.is_empty() && sources.len() <= ENOUGH);
        assert!(sources.iter().all(|source| source.length() > 0));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (path, why) in [("/no/such/file", "No such file"), ("/", "not a regular file")] {
            let message = Source::open(Path::new(path)).err().unwrap().to_string();
            assert!(message.contains(path) && message.contains(why), "{message}");
        }
    }

    #[test]
    fn an_empty_file_is_refused() {
        let path = std::env::temp_dir().join(format!("mmun-demo-empty-{}", std::process::id()));
        File::create(&path).unwrap();
        let error = Source::open(&path);
        std::fs::remove_file(&path).unwrap();
        assert!(error.err().unwrap().to_string().contains("it is empty"));
    }

    #[test]
    fn pread_stops_where_the_file_ends() {
        let source = Source::open(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(source.pread(&mut [0; 16], source.length() - 3).unwrap(), 3);
    }
}
