#!/bin/sh
echo "HOSTNAME=$(uname -n)"
