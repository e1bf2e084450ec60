//! The rows file beside a snapshot: per row its key and its hash, so that differing rows can be listed after the server is gone.
//!
//! The file is a heading, then blocks, then an index of the blocks. A block holds records of one table and one partition of its keys'
//! hashes, so that two files are joined part by part in bounded memory. Every block's hash is in the index, and the index's in the snapshot:
//! what was truncated or edited is found. Integers are little-endian.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::DatabaseError;

const HEADING: &[u8; 16] = b"turnback rows 1\n";
/// A block is written when it reaches this size, or its table ends.
const BLOCK: usize = 64 * 1024;
/// Blocks are written together once they reach this size.
const WRITE: usize = 512 * 1024;
/// At most 2^6 partitions, so that a worker's blocks take at most 4 MiB.
const MOST_BITS: u8 = 6;
/// Rows that a partition is meant to hold.
const PARTITION_ROWS: u64 = 32 * 1024;
const ENTRY: usize = 4 + 1 + 1 + 4 + 4 + 8 + 16;

/// What the snapshot says about its rows file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsFile {
    /// The file's length in bytes.
    pub bytes: u64,
    /// Where the index begins.
    pub index: u64,
    /// The index's hash (XXH3, 128 bits, hexadecimal); it holds every block's.
    pub digest: String,
}

/// One block, as the index names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub table: u32,
    pub bits: u8,
    pub partition: u8,
    pub records: u32,
    pub length: u32,
    offset: u64,
    hash: u128,
}

/// By what a record is put into a partition: the hash of its key, or the row's own hash where there is no key.
pub(super) fn place(key: &[u8], hash: u128) -> u64 {
    if key.is_empty() { (hash >> 64) as u64 } else { xxh3_64(key) }
}

/// The first `bits` bits of a place.
pub(super) fn prefix(place: u64, bits: u8) -> u64 {
    if bits == 0 { 0 } else { place >> (64 - bits) }
}

/// The file being written, by several workers at once.
pub(super) struct Writer {
    file: File,
    next: AtomicU64,
    blocks: Mutex<Vec<Block>>,
}

impl Writer {
    pub(super) fn new(file: File) -> io::Result<Self> {
        file.write_all_at(HEADING, 0)?;
        Ok(Self { file, next: AtomicU64::new(HEADING.len() as u64), blocks: Mutex::default() })
    }

    /// Writes the index; the file is then whole.
    pub(super) fn finish(&self) -> io::Result<RowsFile> {
        let mut blocks = std::mem::take(&mut *lock(&self.blocks));
        blocks.sort_by_key(|block| (block.table, block.partition, block.offset));
        let mut index = Vec::with_capacity(blocks.len() * ENTRY);
        for block in &blocks {
            index.extend(block.table.to_le_bytes());
            index.extend([block.bits, block.partition]);
            index.extend(block.records.to_le_bytes());
            index.extend(block.length.to_le_bytes());
            index.extend(block.offset.to_le_bytes());
            index.extend(block.hash.to_le_bytes());
        }
        let at = self.next.load(Ordering::SeqCst);
        self.file.write_all_at(&index, at)?;
        Ok(RowsFile { bytes: at + index.len() as u64, index: at, digest: format!("{:032x}", xxh3_128(&index)) })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// One worker's part of one table.
pub(super) struct TableWriter<'a> {
    writer: &'a Writer,
    table: u32,
    bits: u8,
    partitions: Vec<(Vec<u8>, u32)>,
    out: Vec<u8>,
    blocks: Vec<Block>,
}

impl<'a> TableWriter<'a> {
    pub(super) fn new(writer: &'a Writer, table: u32, expected: u64) -> Self {
        let wanted = expected.div_ceil(PARTITION_ROWS).max(1).next_power_of_two().trailing_zeros();
        let bits = u8::try_from(wanted).unwrap_or(MOST_BITS).min(MOST_BITS);
        Self { writer, table, bits, partitions: vec![(Vec::new(), 0); 1 << bits], out: Vec::new(), blocks: Vec::new() }
    }

    /// Takes one row in. Without a key, `key` is empty.
    pub(super) fn push(&mut self, key: &[u8], hash: u128) -> io::Result<()> {
        let partition = usize::try_from(prefix(place(key, hash), self.bits)).unwrap_or_default();
        let (block, records) = &mut self.partitions[partition];
        let mut length = key.len();
        while length >= 0x80 {
            block.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        block.push(length as u8);
        block.extend_from_slice(key);
        block.extend_from_slice(&hash.to_le_bytes());
        *records += 1;
        if block.len() >= BLOCK { self.close(partition) } else { Ok(()) }
    }

    /// Writes what is left.
    pub(super) fn finish(mut self) -> io::Result<()> {
        for partition in 0..self.partitions.len() {
            self.close(partition)?;
        }
        self.write()
    }

    fn close(&mut self, partition: usize) -> io::Result<()> {
        let (block, records) = &mut self.partitions[partition];
        if *records == 0 {
            return Ok(());
        }
        let length = u32::try_from(block.len()).map_err(|_| io::Error::other("a key of more than 4 GiB"))?;
        self.blocks.push(Block {
            table: self.table,
            bits: self.bits,
            // There are at most 2^6 partitions.
            partition: partition as u8,
            records: *records,
            length,
            offset: self.out.len() as u64,
            hash: xxh3_128(block),
        });
        self.out.extend_from_slice(block);
        block.clear();
        *records = 0;
        if self.out.len() >= WRITE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        let at = self.writer.next.fetch_add(self.out.len() as u64, Ordering::SeqCst);
        self.writer.file.write_all_at(&self.out, at)?;
        self.out.clear();
        lock(&self.writer.blocks).extend(self.blocks.drain(..).map(|block| Block { offset: block.offset + at, ..block }));
        Ok(())
    }
}

/// A rows file opened for reading, its index checked.
pub(super) struct Reader {
    path: PathBuf,
    file: File,
    blocks: Vec<Block>,
}

impl Reader {
    pub(super) fn open(path: &Path, expected: &RowsFile) -> Result<Self, DatabaseError> {
        let failed = |source| DatabaseError::File { operation: "read", path: path.to_owned(), source };
        let damaged = |problem: String| DatabaseError::Damaged { path: path.to_owned(), problem };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length != expected.bytes {
            return Err(damaged(format!("it has {length} bytes instead of the {} that the snapshot says", expected.bytes)));
        }
        let size = length.checked_sub(expected.index).and_then(|size| usize::try_from(size).ok());
        let Some(size) = size.filter(|size| size % ENTRY == 0) else { return Err(damaged("its index is not whole".into())) };
        let mut index = vec![0; size];
        let mut heading = [0; HEADING.len()];
        file.read_exact_at(&mut heading, 0).map_err(failed)?;
        file.read_exact_at(&mut index, expected.index).map_err(failed)?;
        if &heading != HEADING || format!("{:032x}", xxh3_128(&index)) != expected.digest {
            return Err(damaged("it is not the file that the snapshot was written with".into()));
        }
        Ok(Self { path: path.to_owned(), file, blocks: index.chunks_exact(ENTRY).map(entry).collect() })
    }

    /// The blocks of one table.
    pub(super) fn blocks(&self, table: u32) -> &[Block] {
        let start = self.blocks.partition_point(|block| block.table < table);
        let end = self.blocks.partition_point(|block| block.table <= table);
        &self.blocks[start..end]
    }

    /// Reads a block into `buffer`, checks its hash and hands its records to `take`.
    pub(super) fn read(&self, block: &Block, buffer: &mut Vec<u8>, mut take: impl FnMut(&[u8], u128)) -> Result<(), DatabaseError> {
        buffer.resize(block.length as usize, 0);
        self.file.read_exact_at(buffer, block.offset).map_err(|source| DatabaseError::File {
            operation: "read",
            path: self.path.clone(),
            source,
        })?;
        if xxh3_128(buffer) != block.hash {
            return Err(self.damaged(format!("the block at byte {} was changed", block.offset)));
        }
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let Some((key, hash, after)) = record(rest) else {
                return Err(self.damaged(format!("a record in the block at byte {} is not whole", block.offset)));
            };
            take(key, hash);
            rest = after;
        }
        Ok(())
    }

    /// Reads every block, to find out whether any was changed.
    pub(super) fn verify(&self) -> Result<(), DatabaseError> {
        let mut buffer = Vec::new();
        self.blocks.iter().try_for_each(|block| self.read(block, &mut buffer, |_, _| ()))
    }

    pub(super) fn damaged(&self, problem: String) -> DatabaseError {
        DatabaseError::Damaged { path: self.path.clone(), problem }
    }
}

fn record(bytes: &[u8]) -> Option<(&[u8], u128, &[u8])> {
    let (mut length, mut shift, mut at) = (0usize, 0, 0);
    loop {
        let byte = *bytes.get(at)?;
        at += 1;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
        if shift > 28 {
            return None;
        }
    }
    let (key, rest) = bytes.get(at..)?.split_at_checked(length)?;
    let (hash, rest) = rest.split_at_checked(16)?;
    Some((key, u128::from_le_bytes(hash.try_into().ok()?), rest))
}

/// Reads one entry of the index.
fn entry(bytes: &[u8]) -> Block {
    let four = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let eight = |at: usize| u64::from(four(at)) | u64::from(four(at + 4)) << 32;
    Block {
        table: four(0),
        bits: bytes[4].min(MOST_BITS),
        partition: bytes[5],
        records: four(6),
        length: four(10),
        offset: eight(14),
        hash: u128::from(eight(22)) | u128::from(eight(30)) << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(rows: u32, expected: u64) -> (tempfile::NamedTempFile, RowsFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = Writer::new(file.reopen().unwrap()).unwrap();
        for half in 0..2 {
            let mut table = TableWriter::new(&writer, 3, expected);
            for row in (half..rows).step_by(2) {
                table.push(&[row.to_be_bytes().as_slice(), &[b'k'; 200]].concat(), u128::from(row) << 70).unwrap();
            }
            table.finish().unwrap();
        }
        let described = writer.finish().unwrap();
        (file, described)
    }

    #[test]
    fn every_record_comes_back_in_its_partition() {
        let (file, described) = written(5_000, 1_000_000);
        let reader = Reader::open(file.path(), &described).unwrap();
        assert!(reader.blocks(2).is_empty() && reader.blocks(3).len() >= 32);
        let mut seen = std::collections::BTreeSet::new();
        for block in reader.blocks(3) {
            reader
                .read(block, &mut Vec::new(), |key, hash| {
                    assert_eq!(prefix(place(key, hash), block.bits), u64::from(block.partition));
                    assert!(seen.insert((key.to_vec(), hash)));
                })
                .unwrap();
        }
        assert_eq!(seen.len(), 5_000);
    }

    #[test]
    fn a_truncated_or_edited_file_is_refused() {
        let (file, described) = written(100, 10);
        let bytes = std::fs::read(file.path()).unwrap();
        for at in [0, HEADING.len() + 9, bytes.len() - 1] {
            let mut edited = bytes.clone();
            edited[at] ^= 1;
            std::fs::write(file.path(), &edited).unwrap();
            let problem = Reader::open(file.path(), &described).and_then(|reader| reader.verify()).unwrap_err();
            assert!(matches!(problem, DatabaseError::Damaged { .. }), "{at}: {problem}");
        }
        std::fs::write(file.path(), &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(Reader::open(file.path(), &described), Err(DatabaseError::Damaged { .. })));
    }
}
