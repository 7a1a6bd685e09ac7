#!/bin/sh
echo 'MODELNAME="Double of a CPU @ 2.00GHz"'
