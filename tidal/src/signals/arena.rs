//! Memory for the bucket lists of one column.
//!
//! Knows: chunks of a few sizes, cut from blocks. Must not know: what is in them.
//!
//! A list of its own allocation would pay a 24-byte header and the allocator's rounding; most lists
//! are a few words long.

/// Sizes of chunks, in words of four bytes. Half steps keep what is unused below a third.
const SIZES: [usize; 18] =
    [6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048];

/// Words of a block, about: 4 KiB, so that a small column does not hold much that it does not use.
const BLOCK_WORDS: usize = 1024;

/// One of [`SIZES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class(u8);

impl Class {
    /// The smallest class of at least `words`.
    ///
    /// # Panics
    ///
    /// When no class is large enough, which no bucket list is.
    pub(crate) fn for_words(words: usize) -> Self {
        let class = SIZES.partition_point(|&size| size < words);
        assert!(class < SIZES.len(), "a bucket list has at most {} words", SIZES[SIZES.len() - 1]);
        Self(class as u8)
    }

    pub(crate) const fn words(self) -> usize {
        SIZES[self.0 as usize]
    }

    /// log2 of the chunks in a block.
    const fn block_shift(self) -> u32 {
        let per_block = BLOCK_WORDS / self.words();
        if per_block == 0 { 0 } else { per_block.ilog2() }
    }
}

/// The chunks of one class.
#[derive(Debug, Default)]
struct Pool {
    blocks: Vec<Box<[u32]>>,
    free: Vec<u32>,
}

/// Chunks of all classes.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    pools: [Pool; SIZES.len()],
}

impl Arena {
    /// A chunk of unspecified content.
    pub(crate) fn allocate(&mut self, class: Class) -> u32 {
        let pool = &mut self.pools[class.0 as usize];
        if pool.free.is_empty() {
            let shift = class.block_shift();
            let first = (pool.blocks.len() as u32) << shift;
            pool.blocks.push(vec![0; class.words() << shift].into_boxed_slice());
            pool.free.extend((first..first + (1 << shift)).rev());
        }
        pool.free.pop().expect("a new block has free chunks")
    }

    pub(crate) fn release(&mut self, class: Class, chunk: u32) {
        self.pools[class.0 as usize].free.push(chunk);
    }

    #[inline]
    pub(crate) fn chunk(&self, class: Class, chunk: u32) -> &[u32] {
        let (block, range) = locate(class, chunk);
        &self.pools[class.0 as usize].blocks[block][range]
    }

    #[inline]
    pub(crate) fn chunk_mut(&mut self, class: Class, chunk: u32) -> &mut [u32] {
        let (block, range) = locate(class, chunk);
        &mut self.pools[class.0 as usize].blocks[block][range]
    }

    /// Bytes of memory held.
    pub(crate) fn size_bytes(&self) -> usize {
        let pool = |pool: &Pool| {
            let words: usize = pool.blocks.iter().map(|block| block.len()).sum();
            (words + pool.free.capacity()) * 4 + pool.blocks.capacity() * size_of::<Box<[u32]>>()
        };
        self.pools.iter().map(pool).sum()
    }
}

#[inline]
fn locate(class: Class, chunk: u32) -> (usize, std::ops::Range<usize>) {
    let shift = class.block_shift();
    let at = (chunk & ((1 << shift) - 1)) as usize * class.words();
    ((chunk >> shift) as usize, at..at + class.words())
}
