#!/bin/sh
# Double of the script that starts and stops the monitoring client; tests/opennebula/monitord.py is the client.
cat >/dev/null
echo "double: no client is started here" >&2
exit 1
