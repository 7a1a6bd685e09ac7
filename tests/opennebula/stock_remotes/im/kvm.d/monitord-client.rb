# Double of the monitoring client: tests/opennebula/monitord.py does its work. Must not be executable.
