#!/bin/sh
date +%s
