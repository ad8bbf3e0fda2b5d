//! The names of a root, each with the prefix it shares with the one before: 15,000 names of a Debian root are some
//! 70 KB of it once compressed.
//!
//! A name that cannot have changed stands bare: neither it nor a directory above it was touched since the root was
//! made. Of all others there is everything that `lstat` and `llistxattr` say.

use std::fmt;
use std::io::{self, Read};

use super::number::{put, take, unzigzag, zigzag};

/// PATH_MAX, and what a symbolic link may hold.
const PATH_MAX: u64 = 4096;
/// Attributes of one inode: some of 64 KiB each (XATTR_SIZE_MAX).
const ATTRIBUTES_MAX: u64 = 1 << 20;

/// A name of the root, relative to `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Without a slash in front.
    pub path: Vec<u8>,
    /// What there is to say of it.
    pub what: What,
}

/// What there is to say of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It is as it was made.
    Same,
    /// It was there, and is there no more.
    Gone,
    /// Something is mounted there: what is under it is not to be seen.
    Covered,
    /// It may be other than it was.
    Node(Node),
}

/// An inode as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Names of one inode have one number; 0 for what has one name only.
    pub inode: u64,
    /// When it was touched last.
    pub touched: Touched,
    /// A directory that hides all the image has there.
    pub opaque: bool,
    /// Of a small file that was touched.
    pub sha256: Option<[u8; 32]>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// When an inode was touched last: its ctime, which nothing but the kernel's clock sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// While the root was made of its image.
    Made,
    /// By us, when the image became a seat.
    Settled,
    /// By what the system started, until it said that it is up: the next boot does it again.
    Booted,
    /// Since then.
    Since,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A file of so many bytes.
    File(u64),
    /// A symbolic link, and its target.
    Symlink(Vec<u8>),
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
}

/// What stands behind the last name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// How many names there are.
    pub names: u64,
    /// Of so many nothing could be read.
    pub unread: u64,
}

/// No listing.
#[derive(Debug)]
pub enum Bad {
    /// It cannot be read on.
    Io(io::Error),
    /// It is damaged, or of another version.
    Malformed(&'static str),
}

impl std::error::Error for Bad {}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bad::Io(why) => write!(f, "the listing breaks off: {why}"),
            Bad::Malformed(what) => write!(f, "the listing is damaged: {what}"),
        }
    }
}

impl From<io::Error> for Bad {
    fn from(why: io::Error) -> Bad {
        Bad::Io(why)
    }
}

const SAME: u8 = 0;
const DIR: u8 = 1;
const FILE: u8 = 2;
const SYMLINK: u8 = 3;
const CHAR: u8 = 4;
const BLOCK: u8 = 5;
const FIFO: u8 = 6;
const SOCKET: u8 = 7;
const GONE: u8 = 8;
const COVERED: u8 = 9;
const END: u8 = 10;

const SETTLED: u8 = 1;
const SINCE: u8 = 2;
const OPAQUE: u8 = 4;
const HASHED: u8 = 8;

/// Writes names, one after another.
#[derive(Debug, Default)]
pub struct Writer {
    former: Vec<u8>,
    names: u64,
}

impl Writer {
    /// Adds a name to `out`.
    pub fn put(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        let tag = match &entry.what {
            What::Same => SAME,
            What::Gone => GONE,
            What::Covered => COVERED,
            What::Node(node) => match node.kind {
                Kind::Dir => DIR,
                Kind::File(_) => FILE,
                Kind::Symlink(_) => SYMLINK,
                Kind::Char(..) => CHAR,
                Kind::Block(..) => BLOCK,
                Kind::Fifo => FIFO,
                Kind::Socket => SOCKET,
            },
        };
        out.push(tag);
        let shared = self.former.iter().zip(&entry.path).take_while(|(a, b)| a == b).count();
        put(out, shared as u64);
        bytes(out, entry.path.get(shared..).unwrap_or_default());
        self.former.clone_from(&entry.path);
        self.names += 1;
        if let What::Node(node) = &entry.what {
            put_node(node, out);
        }
    }

    /// After the last one.
    pub fn end(self, unread: u64, out: &mut Vec<u8>) {
        out.push(END);
        put(out, self.names);
        put(out, unread);
    }
}

fn put_node(node: &Node, out: &mut Vec<u8>) {
    let mut flags = match node.touched {
        Touched::Made => 0,
        Touched::Settled => SETTLED,
        Touched::Since => SINCE,
        Touched::Booted => SETTLED | SINCE,
    };
    flags |= if node.opaque { OPAQUE } else { 0 };
    flags |= if node.sha256.is_some() { HASHED } else { 0 };
    out.push(flags);
    put(out, node.mode.into());
    put(out, node.uid.into());
    put(out, node.gid.into());
    put(out, zigzag(node.mtime));
    put(out, node.inode);
    match &node.kind {
        Kind::File(size) => put(out, *size),
        Kind::Symlink(target) => bytes(out, target),
        Kind::Char(major, minor) | Kind::Block(major, minor) => {
            put(out, (*major).into());
            put(out, (*minor).into());
        }
        Kind::Dir | Kind::Fifo | Kind::Socket => {}
    }
    out.extend(node.sha256.iter().flatten());
    put(out, node.xattrs.len() as u64);
    for (name, value) in &node.xattrs {
        bytes(out, name);
        bytes(out, value);
    }
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads names, one after another.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    former: Vec<u8>,
    names: u64,
    end: Option<End>,
}

impl<R: Read> Reader<R> {
    /// From its beginning. Bytes are taken one by one: let it be buffered.
    pub fn new(from: R) -> Reader<R> {
        Reader { from, former: Vec::new(), names: 0, end: None }
    }

    /// What stands behind the last name, once that was read.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The next name, or nothing behind the last one.
    ///
    /// # Errors
    /// It breaks off, or is damaged.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Bad> {
        if self.end.is_some() {
            return Ok(None);
        }
        let tag = self.byte()?;
        if tag == END {
            let end = End { names: self.number()?, unread: self.number()? };
            if end.names != self.names {
                return Err(Bad::Malformed("names are missing"));
            }
            self.end = Some(end);
            return Ok(None);
        }
        let shared = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let rest = self.bytes(PATH_MAX, "a path is too long")?;
        let mut path =
            self.former.get(..shared).ok_or(Bad::Malformed("a path of nothing"))?.to_vec();
        path.extend_from_slice(&rest);
        if path.is_empty() || path.len() as u64 > PATH_MAX || path.contains(&0) {
            return Err(Bad::Malformed("a path is none"));
        }
        self.former.clone_from(&path);
        self.names += 1;
        let what = match tag {
            SAME => What::Same,
            GONE => What::Gone,
            COVERED => What::Covered,
            tag => What::Node(self.node(tag)?),
        };
        Ok(Some(Entry { path, what }))
    }

    fn node(&mut self, tag: u8) -> Result<Node, Bad> {
        let flags = self.byte()?;
        let mode = self.small()? & 0o7777;
        let (uid, gid) = (self.small()?, self.small()?);
        let mtime = unzigzag(self.number()?);
        let inode = self.number()?;
        let kind = match tag {
            DIR => Kind::Dir,
            FILE => Kind::File(self.number()?),
            SYMLINK => Kind::Symlink(self.bytes(PATH_MAX, "a link is too long")?),
            CHAR => Kind::Char(self.small()?, self.small()?),
            BLOCK => Kind::Block(self.small()?, self.small()?),
            FIFO => Kind::Fifo,
            SOCKET => Kind::Socket,
            _ => return Err(Bad::Malformed("a kind that nobody knows")),
        };
        let sha256 = match flags & HASHED {
            0 => None,
            _ => {
                let mut sum = [0; 32];
                self.from.read_exact(&mut sum)?;
                Some(sum)
            }
        };
        let mut room = ATTRIBUTES_MAX;
        let mut xattrs = Vec::new();
        for _ in 0..self.number()? {
            let name = self.bytes(room.min(256), "an attribute's name is too long")?;
            let value = self.bytes(room, "attributes are too large")?;
            let took = (name.len() + value.len()) as u64 + 16;
            room = room.checked_sub(took).ok_or(Bad::Malformed("attributes are too large"))?;
            xattrs.push((name, value));
        }
        let touched = match flags & (SETTLED | SINCE) {
            0 => Touched::Made,
            SETTLED => Touched::Settled,
            SINCE => Touched::Since,
            _ => Touched::Booted,
        };
        let opaque = flags & OPAQUE != 0;
        Ok(Node { kind, mode, uid, gid, mtime, inode, touched, opaque, sha256, xattrs })
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.from.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> Result<u64, Bad> {
        take(|| self.byte())?.ok_or(Bad::Malformed("a number without an end"))
    }

    fn small(&mut self) -> Result<u32, Bad> {
        self.number()?.try_into().map_err(|_| Bad::Malformed("a number is too large"))
    }

    fn bytes(&mut self, most: u64, why: &'static str) -> Result<Vec<u8>, Bad> {
        let many = self.number()?;
        if many > most {
            return Err(Bad::Malformed(why));
        }
        let mut bytes = Vec::new();
        self.from.by_ref().take(many).read_to_end(&mut bytes)?;
        match bytes.len() as u64 == many {
            true => Ok(bytes),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Dir => "directory",
            Kind::File(_) => "file",
            Kind::Symlink(_) => "link",
            Kind::Char(..) | Kind::Block(..) => "device",
            Kind::Fifo => "FIFO",
            Kind::Socket => "socket",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<(Vec<Entry>, End), Bad> {
        let mut reader = Reader::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            entries.push(entry);
        }
        Ok((entries, reader.end().expect("it was read to its end")))
    }

    fn node() -> impl Strategy<Value = Node> {
        let name = || proptest::collection::vec(1_u8.., 1..20);
        let kind = prop_oneof![
            Just(Kind::Dir),
            any::<u64>().prop_map(Kind::File),
            name().prop_map(Kind::Symlink),
            any::<(u32, u32)>().prop_map(|(major, minor)| Kind::Char(major, minor)),
            any::<(u32, u32)>().prop_map(|(major, minor)| Kind::Block(major, minor)),
            Just(Kind::Fifo),
            Just(Kind::Socket),
        ];
        let touched = prop_oneof![
            Just(Touched::Made),
            Just(Touched::Settled),
            Just(Touched::Booted),
            Just(Touched::Since)
        ];
        let xattrs =
            proptest::collection::vec((name(), proptest::collection::vec(any::<u8>(), 0..9)), 0..3);
        let ids = (0_u32..0o10000, any::<u32>(), any::<u32>());
        let rest = (any::<i64>(), any::<u64>(), any::<bool>(), any::<Option<[u8; 32]>>());
        (kind, touched, xattrs, ids, rest).prop_map(|(kind, touched, xattrs, ids, rest)| {
            let (mode, uid, gid) = ids;
            let (mtime, inode, opaque, sha256) = rest;
            Node { kind, mode, uid, gid, mtime, inode, touched, opaque, sha256, xattrs }
        })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let what = prop_oneof![
            Just(What::Same),
            Just(What::Gone),
            Just(What::Covered),
            node().prop_map(What::Node),
        ];
        ("[a-c/]{1,12}", what).prop_map(|(path, what)| Entry { path: path.into_bytes(), what })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entries in proptest::collection::vec(entry(), 0..20), unread in any::<u64>()) {
            let mut bytes = Vec::new();
            let mut writer = Writer::default();
            for entry in &entries {
                writer.put(entry, &mut bytes);
            }
            writer.end(unread, &mut bytes);
            let (read, end) = all(&bytes).expect("as it was written");
            prop_assert_eq!((end.names, end.unread), (entries.len() as u64, unread));
            prop_assert_eq!(read, entries);
            // Cut anywhere, it is known to be cut.
            for cut in 0..bytes.len() {
                prop_assert!(all(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn anything_at_all_is_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _either = all(&bytes);
        }
    }

    #[test]
    fn what_claims_to_be_long_takes_no_memory() {
        let mut bytes = vec![FILE, 0];
        put(&mut bytes, u64::MAX);
        assert!(matches!(all(&bytes), Err(Bad::Malformed("a path is too long"))));
    }
}
