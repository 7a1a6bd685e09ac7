#!/bin/sh
total=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)
echo "HUGEPAGE = [ NODE_ID = \"0\", PAGES = \"0\", SIZE = \"2048\" ]
CORE = [ NODE_ID = \"0\", ID = \"0\", CPUS = \"0\" ]
MEMORY_NODE = [ NODE_ID = \"0\", TOTAL = \"$total\", DISTANCE = \"0\" ]"
