//! Where lines come from: a file or standard input, plain or gzip, counted as they are read.
//!
//! Knows: bytes, gzip's magic, file names. Must not know: what a line says.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;
use flate2::bufread::MultiGzDecoder;

use crate::failure::Failure;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BUFFER_SIZE_BYTES: usize = 1 << 18;

/// How a line is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Fields between tabs, no quoting
    Tsv,
    /// Fields between commas, quoted as in RFC 4180
    Csv,
    /// One JSON object per line
    Jsonl,
}

impl Format {
    /// The format that a file name promises, `.gz` aside.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = without_gz(name).rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "tsv" | "tab" => Some(Self::Tsv),
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

/// `name` without a `.gz` at its end.
pub(crate) fn without_gz(name: &str) -> &str {
    match name.len().checked_sub(3).and_then(|at| name.split_at_checked(at)) {
        Some((stem, extension)) if extension.eq_ignore_ascii_case(".gz") => stem,
        _ => name,
    }
}

/// An opened input.
pub(crate) struct Input {
    /// The bytes, unpacked.
    pub(crate) reader: Box<dyn BufRead>,
    /// Bytes taken from the file so far, before unpacking.
    pub(crate) position_bytes: Arc<AtomicU64>,
    /// Bytes there are in the file, where that is known.
    pub(crate) size_bytes: Option<u64>,
}

/// Opens `path`, or standard input for `-`.
///
/// # Errors
///
/// When the file cannot be opened or its first bytes cannot be read.
pub(crate) fn open(path: &Path) -> anyhow::Result<Input> {
    if path == Path::new("-") {
        return Ok(from_reader(io::stdin(), None)?);
    }
    let refused = |error: io::Error| {
        Failure::failed(format!("could not read {}: {error}", path.display()))
            .hint("give the file to read, or - for standard input")
    };
    let file = File::open(path).map_err(refused)?;
    let metadata = file.metadata().map_err(refused)?;
    if metadata.is_dir() {
        return Err(refused(io::ErrorKind::IsADirectory.into()).into());
    }
    let size_bytes = metadata.is_file().then_some(metadata.len());
    Ok(from_reader(file, size_bytes).map_err(refused)?)
}

/// Looks at the first bytes of `reader` and unpacks if they are gzip's, whatever the name says.
fn from_reader(reader: impl Read + 'static, size_bytes: Option<u64>) -> io::Result<Input> {
    let position_bytes = Arc::new(AtomicU64::new(0));
    let mut counted = Counted { reader, position_bytes: Arc::clone(&position_bytes) };
    let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
    counted.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic)?;
    let is_gzip = magic == GZIP_MAGIC;
    let whole = BufReader::with_capacity(BUFFER_SIZE_BYTES, Cursor::new(magic).chain(counted));
    let reader: Box<dyn BufRead> = if is_gzip {
        Box::new(BufReader::with_capacity(BUFFER_SIZE_BYTES, MultiGzDecoder::new(whole)))
    } else {
        Box::new(whole)
    };
    Ok(Input { reader, position_bytes, size_bytes })
}

struct Counted<R> {
    reader: R,
    position_bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.reader.read(buffer)?;
        self.position_bytes.fetch_add(size as u64, Ordering::Relaxed);
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::records::{Records, Selector};
    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    fn read_all(bytes: Vec<u8>) -> io::Result<(String, u64)> {
        let mut input = from_reader(Cursor::new(bytes), None)?;
        let mut text = String::new();
        input.reader.read_to_string(&mut text)?;
        Ok((text, input.position_bytes.load(Ordering::Relaxed)))
    }

    #[test]
    fn gzip_is_known_by_its_first_bytes_and_plain_text_passes_through() {
        let packed = gzip(b"item\ttime\n");
        let size = packed.len() as u64;
        assert_eq!(read_all(packed).expect("whole"), ("item\ttime\n".to_owned(), size));
        for plain in ["", "x", "item,time\n"] {
            let read = read_all(plain.as_bytes().to_vec()).expect("plain");
            assert_eq!(read, (plain.to_owned(), plain.len() as u64));
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        for bytes in [b"\xef\xbb\xbfitem\n".to_vec(), gzip(b"\xef\xbb\xbfitem\n")] {
            let input = from_reader(Cursor::new(bytes), None).expect("read");
            let mut records = Records::new(input.reader, Format::Tsv);
            let record = records.next().expect("read").expect("a line");
            let item = record.fields.expect("text").get(&Selector::Index(0)).expect("text");
            assert_eq!(item.as_deref(), Some("item"));
        }
    }

    #[test]
    fn gzip_files_written_one_after_the_other_read_as_one() {
        let packed = [gzip(b"a\n"), gzip(b"b\n")].concat();
        assert_eq!(read_all(packed).expect("whole").0, "a\nb\n");
    }

    #[test]
    fn a_gzip_file_cut_short_is_an_error_and_not_an_early_end() {
        let packed = gzip(&b"item,time\n".repeat(100));
        for size in 2..packed.len() {
            assert!(read_all(packed[..size].to_vec()).is_err(), "cut at {size}");
        }
    }

    #[test]
    fn the_format_follows_the_name_under_any_gz() {
        for (name, format) in [
            ("events.tsv.gz", Some(Format::Tsv)),
            ("EVENTS.CSV", Some(Format::Csv)),
            ("log.ndjson.GZ", Some(Format::Jsonl)),
            ("train.txt", None),
            ("events", None),
            ("é.gz", None),
            (".gz", None),
        ] {
            assert_eq!(Format::of_name(name), format, "{name}");
        }
    }
}
