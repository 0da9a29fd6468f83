//! Publish and consume events behind one trait: in-process.
