//! Files of a later version of the library: refused, and not one byte is written.
//!
//! A later version keeps magic, version and hash in their places, so that is what is written here,
//! with the true hash, for the identity and for a segment's header. A manifest lies inside of fjall,
//! out of reach from here: a unit test of the checkpoint stores has one.

use tidal_support::damage::{Case, Edit};

use crate::judge::{Expected, Names, Plan};
use crate::scene::{End, Scene, Sitting};
use crate::{alone, scale};

/// The version that is known is 1.
const LATER: [u16; 4] = [2, 3, 256, u16::MAX];

fn key(context: &str) -> [u8; 32] {
    blake3::derive_key(context, b"")
}

/// An identity: magic 4, kind 1, zero 1, version 2, length 4, id 16, hash 32.
fn identity(bytes: &[u8], version: u16) -> Vec<u8> {
    let mut sealed = bytes[..28].to_vec();
    sealed[6..8].copy_from_slice(&version.to_le_bytes());
    let hash = blake3::keyed_hash(&key("tidal 2026 envelope v1"), &sealed);
    [sealed.as_slice(), hash.as_bytes()].concat()
}

/// The header block of a segment: magic 8, version 2, … hash in the last 32 of 512 bytes.
fn header(bytes: &[u8], version: u16) -> Vec<u8> {
    let mut block = bytes[..480].to_vec();
    block[8..10].copy_from_slice(&version.to_le_bytes());
    let hash = blake3::keyed_hash(&key("tidal 2026 segment v1"), &block);
    [block.as_slice(), hash.as_bytes()].concat()
}

#[test]
fn a_later_format_is_refused_and_not_one_byte_is_written() {
    let _alone = alone();
    let (seed, _) = scale();
    let scene = Scene::new(seed, 40);
    let sittings = [
        Sitting { through: 10, checkpoints: 1, then_through: 20 },
        Sitting { through: 20, checkpoints: 0, then_through: 30 },
    ];
    let closed = scene.write("closed", &sittings, End::Closed);
    // Left in its first sitting: the stores' files are as fjall made them, and not yet opened again.
    let fresh = scene.write("fresh", &sittings[..1], End::Dropped);
    let mut plan = Plan::default();
    for base in [&closed, &fresh] {
        let path = scene.path().join(&base.name);
        let bytes = std::fs::read(path.join("identity")).expect("it is read");
        assert_eq!(identity(&bytes, 1), bytes, "this is how an identity is sealed");
        let refused =
            |file: &str| Expected::Refused(&["FormatTooNew"], Names::File(file.to_owned()));
        for version in LATER {
            let file = "identity";
            let edit = Edit::Write(file.to_owned(), 0, identity(&bytes, version));
            plan.add("identity", Case::new(&base.name, [edit]), refused(file));
            for segment in &base.segments {
                assert_eq!(header(&segment.bytes, 1), segment.bytes[..512], "so is a header");
                let edit = Edit::Write(segment.file.clone(), 0, header(&segment.bytes, version));
                plan.add("segment", Case::new(&base.name, [edit]), refused(&segment.file));
            }
        }
    }
    let table = plan.run(&scene, &[&closed, &fresh]);
    assert!(table["identity"].refused == 8 && table["segment"].refused >= 12);
}
