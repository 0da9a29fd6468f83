//! Reading a backup: from a stranger, as far as this file is concerned. Whatever it says of itself is checked against what
//! is there, sizes are bounded before memory is taken, and nothing of it is used as a path on the way.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use store::copying::newest_schema;

use super::{CONFIG, FORMAT, HEAD, Head, MANIFEST, Manifest, Sums, TABLES, files, seal, sha256};

/// What a file of zstd begins with.
pub(super) const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The longest head and manifest, in bytes.
const LONGEST_NOTE: u64 = 16 << 20;
/// The longest file of the folder of agents: more is not read there either.
const LONGEST_FILE: u64 = 1 << 20;
/// The longest piece of a table: about a mebibyte and the longest row.
const LONGEST_PIECE: u64 = 258 << 20;
/// How many times longer than the file all of it may be. Rows that repeat one another come to a hundred.
const EXPANSION: u64 = 1000;
/// The most that zstd may look back, as a power of two of bytes: bounds its memory.
const WINDOW: u32 = 27;

/// A backup whose seal is whole.
pub(crate) struct Opened {
    /// Where it came from.
    pub(crate) name: String,
    file: File,
    length: u64,
    /// The digest of the whole file.
    pub(crate) sha256: String,
}

/// Something that was read of it.
pub(crate) enum Item<'a> {
    /// First.
    Head(&'a Head),
    /// A file of the folder of agents: its path is checked.
    File(&'a str, &'a [u8]),
    /// Rows of a table of the layout: lines.
    Rows(usize, Vec<u8>),
}

impl Opened {
    /// Opens a file and checks its seal.
    ///
    /// # Errors
    /// It can't be read, is no backup, or is damaged.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| format!("{name} can't be read"))?;
        Self::of(file, name)
    }

    /// Checks the seal of a file that is open; `name` is where it came from.
    ///
    /// # Errors
    /// It can't be read, is no backup, or is damaged.
    pub(crate) fn of(mut file: File, name: String) -> anyhow::Result<Self> {
        let read = || format!("{name} can't be read");
        let about = file.metadata().with_context(read)?;
        ensure!(about.is_file(), "{name} is not a file");
        file.seek(SeekFrom::Start(0)).with_context(read)?;
        let mut magic = [0; 4];
        let is_zstd = file.read_exact(&mut magic).is_ok() && magic == MAGIC;
        ensure!(is_zstd, "{name} is not a backup of AgentRunner");
        file.seek(SeekFrom::Start(0)).with_context(read)?;
        let length = about.len();
        let sum = seal::check(BufReader::with_capacity(1 << 18, &file), length);
        let Some(sha256) = sum.with_context(read)? else {
            bail!(
                "{name} is damaged: it was cut short or changed, or is not a backup of AgentRunner; nothing of it was used"
            );
        };
        Ok(Self {
            name,
            file,
            length,
            sha256,
        })
    }

    /// How long the file is, in bytes.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// Reads all of it, and hands over each thing once it is checked; what is known of the whole only at its end, so
    /// whoever uses the things before must be able to take them back. `told` hears how far it is, in bytes of the file.
    ///
    /// # Errors
    /// Something is not as it must be, with what; or what `take` says.
    pub(crate) fn read(
        &mut self,
        mut told: impl FnMut(u64),
        take: &mut dyn FnMut(Item<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<(Head, Manifest)> {
        self.file.seek(SeekFrom::Start(0))?;
        let body = Counted {
            inner: (&self.file).take(self.length.saturating_sub(seal::LENGTH)),
            read: &mut told,
            count: 0,
        };
        let mut decoder = zstd::Decoder::new(body).context("it can't be unpacked")?;
        decoder.window_log_max(WINDOW)?;
        let most = self
            .length
            .saturating_mul(EXPANSION)
            .saturating_add(64 << 20);
        let mut archive = tar::Archive::new(Bounded {
            inner: decoder.single_frame(),
            left: most,
        });
        let mut reader = Reader::default();
        // Raw: extensions that could claim other names and sizes are entries like any other, and refused.
        for entry in archive.entries()?.raw(true) {
            let mut entry = entry.context("it is no archive that we write")?;
            reader.entry(&mut entry, take)?;
        }
        drop(archive);
        reader.finish()
    }
}

/// How far reading is.
#[derive(Default)]
struct Reader {
    head: Option<(Head, String)>,
    sums: Option<Sums>,
    files: Vec<super::FileSum>,
    /// The table whose pieces come, and how many came.
    place: (usize, u64),
    manifest: Option<Manifest>,
}

impl Reader {
    fn entry(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        take: &mut dyn FnMut(Item<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let path = entry.path_bytes().into_owned();
        let path = String::from_utf8(path)
            .ok()
            .context("an entry has no name")?;
        let shown = || path.chars().take(80).collect::<String>();
        let kind = entry.header().entry_type();
        ensure!(
            kind == tar::EntryType::Regular,
            "the entry {:?} is not a file: links and the like are not followed",
            shown()
        );
        ensure!(self.manifest.is_none(), "{:?} comes after the end", shown());
        if self.head.is_none() {
            ensure!(path == HEAD, "it is not a backup of AgentRunner");
            return self.begin(&content(entry, LONGEST_NOTE)?, take);
        }
        if path == MANIFEST {
            let json = content(entry, LONGEST_NOTE)?;
            self.manifest = Some(serde_json::from_slice(&json).context(MANIFEST)?);
            return Ok(());
        }
        if let Some(name) = path.strip_prefix(CONFIG) {
            if let Err(why) = files::check(name) {
                bail!("the entry {:?} is refused: {why}", shown());
            }
            let file = content(entry, LONGEST_FILE)?;
            self.files.push(super::FileSum {
                path: name.to_owned(),
                bytes: file.len() as u64,
                sha256: sha256(&file),
            });
            return take(Item::File(name, &file));
        }
        let Some(table) = path.strip_prefix(TABLES).and_then(|name| self.next(name)) else {
            bail!("the entry {:?} does not belong here", shown());
        };
        let lines = content(entry, LONGEST_PIECE)?;
        let rows = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        ensure!(lines.last() == Some(&b'\n'), "{:?} is cut off", shown());
        if let Some(sums) = &mut self.sums {
            sums.add(table, rows, &lines);
        }
        take(Item::Rows(table, lines))
    }

    fn begin(
        &mut self,
        json: &[u8],
        take: &mut dyn FnMut(Item<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        /// The part that every version has.
        #[derive(serde::Deserialize)]
        struct Format {
            format: u32,
            product: String,
        }
        let format: Format = serde_json::from_slice(json).context(HEAD)?;
        let product: String = format.product.chars().take(40).collect();
        ensure!(
            format.format <= FORMAT,
            "it was made by AgentRunner {product} in format {}, and this program reads up to {FORMAT}; use that version or a newer one",
            format.format
        );
        let head: Head = serde_json::from_slice(json).context(HEAD)?;
        ensure!(
            head.layout.schema <= newest_schema(),
            "it was made by AgentRunner {product} with schema version {}, and this program knows up to {}; use that version or a newer one",
            head.layout.schema,
            newest_schema()
        );
        head.layout.check()?;
        self.sums = Some(Sums::new(&head.layout));
        take(Item::Head(&head))?;
        self.head = Some((head, sha256(json)));
        Ok(())
    }

    /// The table that a piece of that name belongs to, when it is the next one.
    fn next(&mut self, name: &str) -> Option<usize> {
        let (head, _) = self.head.as_ref()?;
        let (table, number) = name.strip_suffix(".jsonl")?.split_once('/')?;
        let table = head
            .layout
            .tables
            .iter()
            .position(|one| one.name == table)?;
        let (last, count) = self.place;
        let expected = match table.cmp(&last) {
            std::cmp::Ordering::Less => return None,
            std::cmp::Ordering::Equal => count + 1,
            std::cmp::Ordering::Greater => 1,
        };
        self.place = (table, expected);
        (number == format!("{expected:08}")).then_some(table)
    }

    fn finish(self) -> anyhow::Result<(Head, Manifest)> {
        let (Some((head, sum)), Some(manifest), Some(sums)) = (self.head, self.manifest, self.sums)
        else {
            bail!("it has no end; nothing of it was used");
        };
        let found = Manifest {
            head: sum,
            tables: sums.finish(),
            files: self.files,
        };
        ensure!(
            found == manifest,
            "what is in it is not what its manifest says; nothing of it was used"
        );
        Ok((head, manifest))
    }
}

/// What an entry holds, if it is not longer than `most`.
fn content(entry: &mut tar::Entry<'_, impl Read>, most: u64) -> anyhow::Result<Vec<u8>> {
    let size = entry.size();
    ensure!(
        size <= most,
        "an entry claims {size} bytes, and {most} is the most; nothing of it was used"
    );
    let mut content = Vec::new();
    entry.take(most + 1).read_to_end(&mut content)?;
    ensure!(content.len() as u64 == size, "an entry is cut off");
    Ok(content)
}

/// Refuses to read more than so much.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            let message = format!("it unpacks to more than {EXPANSION} times its length");
            io::Error::other(message)
        })?;
        Ok(read)
    }
}

/// Tells how much was read.
struct Counted<'a, R, F> {
    inner: R,
    read: &'a mut F,
    count: u64,
}

impl<R: Read, F: FnMut(u64)> Read for Counted<'_, R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        (self.read)(self.count);
        Ok(read)
    }
}
