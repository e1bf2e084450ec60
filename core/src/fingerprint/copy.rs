//! PostgreSQL's binary COPY format, read incrementally: rows come out whole whatever the chunks they arrive in.

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// What is wrong with a stream of binary COPY data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// It does not begin as COPY BINARY does.
    #[error("the data do not begin with COPY's binary signature")]
    Signature,
    /// A row has another number of fields than was selected.
    #[error("a row has {found} fields instead of {expected}")]
    Fields {
        /// How many were selected.
        expected: usize,
        /// How many came.
        found: i16,
    },
    /// A field's length is negative and not the one that means NULL.
    #[error("a field has the impossible length {0}")]
    Length(i32),
    /// The stream ended before the trailer.
    #[error("the data end before COPY's trailer")]
    Truncated,
    /// Something follows the trailer.
    #[error("data follow COPY's trailer")]
    Trailing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Rows,
    Done,
}

/// Cuts the stream into rows. Keeps at most one row's bytes.
pub struct CopyReader {
    fields: usize,
    state: State,
    pending: Vec<u8>,
    ends: Vec<(usize, bool)>,
}

/// One row: its fields as they were sent, without the field count.
pub struct Row<'a> {
    bytes: &'a [u8],
    /// Where each field ends, and whether it is NULL.
    ends: &'a [(usize, bool)],
}

impl<'a> Row<'a> {
    /// The first `count` fields with their lengths: NULL and empty differ, and fields cannot run into each other.
    #[must_use]
    pub fn first(&self, count: usize) -> &'a [u8] {
        match count.checked_sub(1).and_then(|last| self.ends.get(last)) {
            Some(&(end, _)) => &self.bytes[..end],
            None => &[],
        }
    }

    /// A field's value; `None` for NULL.
    #[must_use]
    pub fn field(&self, index: usize) -> Option<&'a [u8]> {
        let start = if index == 0 { 0 } else { self.ends[index - 1].0 };
        let (end, null) = self.ends[index];
        (!null).then(|| &self.bytes[start + 4..end])
    }
}

impl CopyReader {
    /// A reader of rows with this many fields.
    #[must_use]
    pub fn new(fields: usize) -> Self {
        Self { fields, state: State::Header, pending: Vec::new(), ends: Vec::with_capacity(fields) }
    }

    /// Takes a chunk in and hands every row that it completes to `take`.
    ///
    /// # Errors
    /// Where the data are not COPY's binary format with the expected number of fields.
    pub fn feed(&mut self, chunk: &[u8], mut take: impl FnMut(&Row<'_>)) -> Result<(), CopyError> {
        if self.pending.is_empty() {
            let used = self.consume(chunk, &mut take)?;
            self.pending.extend_from_slice(&chunk[used..]);
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(chunk);
        let used = self.consume(&pending, &mut take)?;
        pending.drain(..used);
        self.pending = pending;
        Ok(())
    }

    /// Checks that the stream ended where it should.
    ///
    /// # Errors
    /// [`CopyError::Truncated`] if it did not.
    pub fn finish(&self) -> Result<(), CopyError> {
        if self.state == State::Done && self.pending.is_empty() { Ok(()) } else { Err(CopyError::Truncated) }
    }

    /// Reads as many whole rows as there are; says how many bytes they took.
    fn consume(&mut self, data: &[u8], take: &mut impl FnMut(&Row<'_>)) -> Result<usize, CopyError> {
        let mut at = 0;
        if self.state == State::Header {
            let known = data.len().min(SIGNATURE.len());
            if data[..known] != SIGNATURE[..known] {
                return Err(CopyError::Signature);
            }
            let Some(extension) = int32(data, SIGNATURE.len() + 4) else { return Ok(0) };
            let length = usize::try_from(extension).map_err(|_| CopyError::Length(extension))?;
            at = SIGNATURE.len() + 8 + length;
            if data.len() < at {
                return Ok(0);
            }
            self.state = State::Rows;
        }
        while at < data.len() {
            if self.state == State::Done {
                return Err(CopyError::Trailing);
            }
            let Some(&[high, low]) = data.get(at..at + 2) else { break };
            let count = i16::from_be_bytes([high, low]);
            if count == -1 {
                self.state = State::Done;
                at += 2;
                continue;
            }
            if usize::try_from(count) != Ok(self.fields) {
                return Err(CopyError::Fields { expected: self.fields, found: count });
            }
            let bytes = &data[at + 2..];
            let Some(length) = fields(bytes, self.fields, &mut self.ends)? else { break };
            take(&Row { bytes: &bytes[..length], ends: &self.ends });
            at += 2 + length;
        }
        Ok(at)
    }
}

/// Finds the ends of a row's fields; `None` while the row is not whole.
fn fields(bytes: &[u8], count: usize, ends: &mut Vec<(usize, bool)>) -> Result<Option<usize>, CopyError> {
    ends.clear();
    let mut at = 0;
    for _ in 0..count {
        let Some(length) = int32(bytes, at) else { return Ok(None) };
        at += 4;
        if length == -1 {
            ends.push((at, true));
            continue;
        }
        at += usize::try_from(length).map_err(|_| CopyError::Length(length))?;
        if bytes.len() < at {
            return Ok(None);
        }
        ends.push((at, false));
    }
    Ok(Some(at))
}

fn int32(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..at + 4)?.try_into().ok().map(i32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Rows = Vec<Vec<Option<Vec<u8>>>>;

    fn encode(rows: &Rows) -> Vec<u8> {
        let mut data = SIGNATURE.to_vec();
        data.extend([0, 0, 0, 0, 0, 0, 0, 3, b'e', b'x', b't']);
        for row in rows {
            data.extend(i16::try_from(row.len()).unwrap().to_be_bytes());
            for field in row {
                match field {
                    None => data.extend((-1i32).to_be_bytes()),
                    Some(value) => {
                        data.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
                        data.extend(value);
                    }
                }
            }
        }
        data.extend([0xff, 0xff]);
        data
    }

    proptest! {
        #[test]
        fn rows_come_out_whole_whatever_the_chunks(
            rows in prop::collection::vec(prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 3), 0..12),
            size in 1usize..40,
        ) {
            let mut reader = CopyReader::new(3);
            let mut read: Rows = Vec::new();
            for chunk in encode(&rows).chunks(size) {
                reader.feed(chunk, |row| read.push((0..3).map(|field| row.field(field).map(<[u8]>::to_vec)).collect())).unwrap();
            }
            reader.finish().unwrap();
            prop_assert_eq!(read, rows);
        }
    }

    #[test]
    fn null_and_empty_differ_and_fields_do_not_run_together() {
        let bytes = |row: Vec<Option<&[u8]>>| {
            let mut out = Vec::new();
            let rows = vec![row.iter().map(|field| field.map(<[u8]>::to_vec)).collect()];
            CopyReader::new(row.len()).feed(&encode(&rows), |row| out = row.first(2).to_vec()).unwrap();
            out
        };
        assert_ne!(bytes(vec![None, Some(b"")]), bytes(vec![Some(b""), None]));
        assert_ne!(bytes(vec![Some(b"ab"), Some(b"c")]), bytes(vec![Some(b"a"), Some(b"bc")]));
        assert_eq!(bytes(vec![Some(b"a"), None, Some(b"k")]), bytes(vec![Some(b"a"), None]));
    }

    #[test]
    fn a_broken_stream_is_refused() {
        let whole = encode(&vec![vec![Some(vec![1, 2, 3])]]);
        let read = |data: &[u8]| {
            let mut reader = CopyReader::new(1);
            reader.feed(data, |_| ()).and_then(|()| reader.finish())
        };
        assert_eq!(read(&whole), Ok(()));
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), Err(CopyError::Truncated), "{cut}");
        }
        assert_eq!(read(b"PGCOPX"), Err(CopyError::Signature));
        let mut more = whole;
        more.push(0);
        assert_eq!(read(&more), Err(CopyError::Trailing));
        assert_eq!(read(&encode(&vec![vec![None, None]])), Err(CopyError::Fields { expected: 1, found: 2 }));
    }
}
