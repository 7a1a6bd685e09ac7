#!/bin/sh
free=$(sed -n 's/^MemFree: *\([0-9]*\) kB/\1/p' /proc/meminfo)
echo "HUGEPAGE = [ NODE_ID = \"0\", SIZE = \"2048\", FREE = \"0\" ]
MEMORY_NODE = [ NODE_ID = \"0\", FREE = \"$free\", USED = \"4096\" ]"
