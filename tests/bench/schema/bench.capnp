@0xd1f0a7c35b2e4986;

interface Bench {
  add @0 (a :Int64, b :Int64) -> (sum :Int64);
  echo @1 (payload :Data) -> (payload :Data);
  download @2 (bytes :UInt64, into :Pieces) -> ();
  upload @3 () -> (into :Pieces);
  subscribe @4 (consumer :Consumer) -> ();
  publish @5 (event :Int64) -> ();
  value @6 (value :Int64) -> (value :Value);
}

interface Value {
  add @0 (b :Int64) -> (sum :Value);
  read @1 () -> (value :Int64);
}

interface Pieces {
  write @0 (piece :Data) -> stream;
  done @1 () -> (bytes :UInt64);
}

interface Consumer {
  pushed @0 (event :Int64) -> ();
}
