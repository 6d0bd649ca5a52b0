//! tidalctl
fn main() {}
