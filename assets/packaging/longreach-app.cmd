@echo off
rem Opens the app in place of the command line.
start "" "%~dp0longreach.exe" app %*
