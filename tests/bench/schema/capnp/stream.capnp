# What `-> stream` stands for, for packages of the compiler that come without it.
@0x86c366a91393f3f8;

struct StreamResult @0x995f9a3377c0b16e {}
