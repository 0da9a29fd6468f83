//! Writing a backup: beside its place, under a name that says that it is not whole; its own name it gets when it is on disk.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use domain::Time;
use serde::Serialize;
use store::copying::{Coming, Layout, Piece};

use super::keep::{file_name, is_unfinished, unfinished_name};
use super::seal::Sealing;
use super::{CONFIG, FORMAT, FileSum, HEAD, Head, MANIFEST, Manifest, Sums, TABLES, sha256};

/// How hard it is compressed: three quarters of what more effort would win, at a tenth of the time.
const LEVEL: i32 = 3;

/// A backup that was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// What it is called.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) head: Head,
    pub(crate) manifest: Manifest,
}

type Archive = tar::Builder<zstd::Encoder<'static, Sealing<BufWriter<File>>>>;

/// A file that is not whole. It goes when nobody has given it its name.
struct Unfinished {
    path: PathBuf,
    is_finished: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// What is written, besides the rows.
pub(crate) struct Source {
    /// The word for the kind of database.
    pub(crate) store: &'static str,
    /// The files of the folder of agents.
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

/// Writes a backup into a folder. `told` hears after each piece how many rows there are. Blocks.
///
/// # Errors
/// It can't be written, or the rows do not come to their end; nothing is left under its name.
pub(crate) fn write(
    folder: &Path,
    source: &Source,
    mut coming: Coming,
    told: impl FnMut(&str, u64),
) -> anyhow::Result<Written> {
    make_folder(folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let layout = begin(&mut coming)?;
    let name = file_name(layout.taken_at);
    let path = folder.join(&name);
    anyhow::ensure!(!path.exists(), "{} is there already", path.display());
    let full = || format!("{} can't be written", path.display());
    forget_unfinished(folder).with_context(full)?;
    let beside = folder.join(unfinished_name(&name));
    let file = create(&beside).with_context(full)?;
    let mut unfinished = Unfinished {
        path: beside,
        is_finished: false,
    };
    let (file, written) = pour(file, source, layout, coming, told).with_context(full)?;
    file.sync_all().with_context(full)?;
    fs::rename(&unfinished.path, &path).with_context(full)?;
    unfinished.is_finished = true;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(full)?;
    Ok(written)
}

/// Writes a backup that goes elsewhere: into a file that has no name in this folder, so nothing of it is left whatever
/// happens. Blocks.
///
/// # Errors
/// It can't be written, or the rows do not come to their end.
pub(crate) fn write_aside(
    folder: &Path,
    source: &Source,
    mut coming: Coming,
    told: impl FnMut(&str, u64),
) -> anyhow::Result<(File, Written)> {
    let layout = begin(&mut coming)?;
    let file = aside(folder)?;
    pour(file, source, layout, coming, told).with_context(|| {
        let folder = folder.display();
        format!("{folder} can't hold the backup on its way: make room, or name another one with --data-dir")
    })
}

/// A file that has no name, in this folder: this user's alone, and gone with this process.
///
/// # Errors
/// The folder can't be made or written.
pub(crate) fn aside(folder: &Path) -> anyhow::Result<File> {
    make_folder(folder)
        .and_then(|()| tempfile::tempfile_in(folder))
        .with_context(|| {
            let folder = folder.display();
            format!("{folder} can't be written, where a backup is kept on its way: name a folder with --data-dir")
        })
}

fn begin(coming: &mut Coming) -> anyhow::Result<Layout> {
    match coming.blocking_recv() {
        Some(Piece::Begin(layout)) => Ok(layout),
        Some(Piece::Rows { .. } | Piece::End) | None => {
            anyhow::bail!("nothing came from the database")
        }
    }
}

/// Writes all of it into a file.
fn pour(
    file: File,
    source: &Source,
    layout: Layout,
    mut coming: Coming,
    mut told: impl FnMut(&str, u64),
) -> anyhow::Result<(File, Written)> {
    let head = Head {
        format: FORMAT,
        product: env!("CARGO_PKG_VERSION").to_owned(),
        store: source.store.to_owned(),
        layout,
    };
    let sealing = Sealing::new(BufWriter::with_capacity(1 << 18, file));
    let mut encoder = zstd::Encoder::new(sealing, LEVEL)?;
    encoder.include_checksum(true)?;
    let mut archive = tar::Builder::new(encoder);

    let at = head.layout.taken_at;
    let json = line(&head)?;
    let mut manifest = Manifest {
        head: sha256(&json),
        ..Manifest::default()
    };
    add(&mut archive, HEAD, &json, at)?;
    for (path, content) in &source.files {
        add(&mut archive, &format!("{CONFIG}{path}"), content, at)?;
        manifest.files.push(FileSum {
            path: path.clone(),
            bytes: content.len() as u64,
            sha256: sha256(content),
        });
    }
    manifest.tables = rows(&mut archive, &head, &mut coming, &mut told)?.finish();
    add(&mut archive, MANIFEST, &line(&manifest)?, at)?;

    let sealing = archive.into_inner().and_then(zstd::Encoder::finish)?;
    let (writer, bytes, sha256) = sealing.finish()?;
    let file = writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    let written = Written {
        name: file_name(at),
        bytes,
        sha256,
        head,
        manifest,
    };
    Ok((file, written))
}

fn rows(
    archive: &mut Archive,
    head: &Head,
    coming: &mut Coming,
    told: &mut impl FnMut(&str, u64),
) -> anyhow::Result<Sums> {
    let mut sums = Sums::new(&head.layout);
    let (mut number, mut last, mut all) = (0u64, 0, 0);
    loop {
        match coming.blocking_recv() {
            Some(Piece::Rows {
                table,
                count,
                lines,
            }) => {
                let name = head.layout.tables.get(table);
                let name = name.context("rows of an unknown table")?.name.as_str();
                number = if table == last { number + 1 } else { 1 };
                last = table;
                let path = format!("{TABLES}{name}/{number:08}.jsonl");
                add(archive, &path, &lines, head.layout.taken_at)?;
                sums.add(table, count, &lines);
                all += count;
                told(name, all);
            }
            Some(Piece::End) => return Ok(sums),
            Some(Piece::Begin(_)) | None => anyhow::bail!("the rows did not come to their end"),
        }
    }
}

fn add(archive: &mut Archive, path: &str, content: &[u8], at: Time) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path)?;
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(at.timestamp()).unwrap_or_default());
    header.set_cksum();
    archive.append(&header, content)
}

fn line(value: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    let mut json = serde_json::to_vec(value)?;
    json.push(b'\n');
    Ok(json)
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// For this user alone: what agents were told and said is in it.
fn create(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    // For as long as this process lives: what nobody holds was left by one that was killed.
    file.lock()?;
    Ok(file)
}

/// Removes what killed backups left in a folder; what another one is writing stays.
fn forget_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(is_unfinished) {
            continue;
        }
        let is_left = File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if is_left {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
