//! The journal and its neighbours behind one trait: SQLite.
