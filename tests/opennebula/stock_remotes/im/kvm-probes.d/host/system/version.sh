#!/bin/sh
echo "VERSION=\"$(tail -n 1 ../../VERSION)\""
